// Ps2Mouse: a PS/2 mouse with the standard, IntelliMouse (wheel) and Explorer (five buttons) protocols.
#pragma once
#include "devices/core/roles.h"
#include "devices/input/input_sink.h"
#include "devices/input/ps2_port.h"

#include <array>
#include <functional>

namespace vmm::dev {

// A packet is made when the host has taken the one before, out of all movement since: nothing is lost and nothing
// queues up. Device lock.
class Ps2Mouse final : public Ps2Device, public MouseSink, public Resettable, public Snapshottable {
public:
    enum class Protocol : std::uint8_t { standard = 0, wheel = 3, explorer = 4 }; // also the device ID
    struct State {
        Ps2Queue output{};
        Protocol protocol = Protocol::standard;
        bool reporting = false; // data reporting enabled
        bool remote = false;    // packets only on request
        bool wrap = false;      // every byte is echoed
        bool double_scaling = false;
        std::uint8_t resolution = 2, rate = 100;
        std::array<std::uint8_t, 3> last_rates{}; // the magic knock of the wheel protocols, oldest first
        std::uint8_t pending_command = 0;
        std::uint8_t last_sent = 0;
        std::int32_t dx = 0, dy = 0, dz = 0; // not yet reported; y down
        std::uint8_t buttons = 0, reported_buttons = 0;
    };

    void command(std::uint8_t byte) override;
    bool has_output() const override { return state_.output.count != 0; }
    std::uint8_t take_output() override;
    void set_on_output(std::function<void()> callback) override { on_output_ = std::move(callback); }
    void mouse(int dx, int dy, int dz, std::uint8_t buttons) override;

    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;
    State const& state() const { return state_; }

private:
    bool something_to_report() const;
    bool report_if_idle();
    void push_packet();
    void reply(std::initializer_list<std::uint8_t> bytes);
    void argument(std::uint8_t command, std::uint8_t byte);
    void set_rate(std::uint8_t rate);
    void set_defaults();

    State state_;
    std::function<void()> on_output_;
};

} // namespace vmm::dev
