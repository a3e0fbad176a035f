// Ps2Keyboard: a 101/102-key PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, "Keyboards").
#pragma once
#include "devices/core/roles.h"
#include "devices/input/ps2_port.h"
#include "devices/input/scancodes.h"

#include <array>
#include <functional>

namespace vmm::dev {

// Keys do not repeat by themselves: the operating systems we run do that, and a host keyboard repeats anyway. Replies
// to commands overtake scan codes. Device lock.
class Ps2Keyboard final : public Ps2Device, public KeySink, public Resettable, public Snapshottable {
public:
    struct State {
        Ps2Queue replies{}, codes{};
        ScanSet set = ScanSet::set2;
        bool scanning = true;                      // keys are reported
        std::array<std::uint8_t, 32> set3_makes{}; // a bit for each code of set 3 whose key is silent when released
        std::uint8_t leds = 0;                     // bit 0 scroll, 1 num, 2 caps lock
        std::uint8_t typematic = 0x2b;
        std::uint8_t pending_command = 0; // awaits its argument; 0 for none
        std::uint8_t last_sent = 0;
        std::uint8_t modifiers = 0; // which of shift, ctrl and alt are held
    };

    void command(std::uint8_t byte) override;
    bool has_output() const override { return state_.replies.count || state_.codes.count; }
    std::uint8_t take_output() override;
    void set_on_output(std::function<void()> callback) override { on_output_ = std::move(callback); }
    void key(Key code, bool down) override;

    // The guest lit other lamps.
    void set_on_leds(std::function<void(std::uint8_t leds)> callback) { on_leds_ = std::move(callback); }

    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;
    State const& state() const { return state_; }

private:
    void argument(std::uint8_t command, std::uint8_t byte);
    void set_key_type(std::uint8_t set3_code, bool breaks);
    void reply(std::initializer_list<std::uint8_t> bytes);
    void set_defaults();
    void set_leds(std::uint8_t leds);

    State state_;
    std::function<void()> on_output_;
    std::function<void(std::uint8_t)> on_leds_;
};

} // namespace vmm::dev
