// I8042: the PC's keyboard controller, ports 0x60 and 0x64 (IBM PS/2 Hardware Interface Technical Reference, "Keyboard
// and Auxiliary Device Controller").
#pragma once
#include "devices/core/irq_line.h"
#include "devices/core/roles.h"
#include "devices/input/ps2_port.h"
#include "vmm/base/log.h"
#include "vmm/memory/io_handler.h"

#include <array>

namespace vmm::dev {

// One output buffer, filled from the controller's own replies, the keyboard, then the auxiliary device (the mouse),
// each time the host has emptied it. The interrupts are held high while the buffer holds a byte of theirs. Device lock.
class I8042 final : public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t data_port = 0x60, command_port = 0x64;
    static constexpr AccessRules access_rules{.max_impl = 1};
    enum class Source : std::uint8_t { none, controller, keyboard, auxiliary };
    struct State {
        std::array<std::uint8_t, 32> ram{0x03}; // ram[0] is the command byte
        std::uint8_t output = 0;                // the output buffer, kept after it was read
        Source source = Source::none;           // whose byte it holds unread
        bool output_auxiliary = false;          // the byte counts as the auxiliary device's (also one of command D3)
        std::uint8_t reply = 0;                 // a controller's reply waiting for the buffer
        bool reply_waiting = false, reply_auxiliary = false;
        std::uint8_t pending_command = 0; // awaits a byte at port 0x60
        bool last_was_command = false;    // status bit 3
        bool system_flag = false;         // status bit 2
        bool a20 = true;
        bool break_prefix = false; // an F0 was swallowed by the translation
    };
    struct Needs {
        IrqLine& keyboard_irq;  // IRQ 1
        IrqLine& auxiliary_irq; // IRQ 12
        IrqLine& a20;
        IrqLine& reset; // pulsed
        Ps2Device& keyboard;
        Ps2Device& auxiliary;
        Log& log;
    };
    explicit I8042(Needs needs);

    // One byte each.
    IoHandler& data() { return data_; }
    IoHandler& command() { return command_; }

    // What firmware does: interrupts of both devices, translation, system flag. For booting without firmware.
    void set_up_as_firmware();

    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;
    State const& state() const { return state_; }

private:
    struct Data final : IoHandler {
        explicit Data(I8042& to) : device(to) {}
        std::uint64_t read(std::uint64_t, unsigned) override { return device.read_data(); }
        void write(std::uint64_t, unsigned, std::uint64_t value) override { device.write_data(std::uint8_t(value)); }
        I8042& device;
    };
    struct Command final : IoHandler {
        explicit Command(I8042& to) : device(to) {}
        std::uint64_t read(std::uint64_t, unsigned) override { return device.status(); }
        void write(std::uint64_t, unsigned, std::uint64_t value) override { device.write_command(std::uint8_t(value)); }
        I8042& device;
    };
    std::uint8_t command_byte() const { return state_.ram[0]; }
    std::uint8_t status() const;
    std::uint8_t output_port() const;
    std::uint8_t read_data();
    void write_data(std::uint8_t value);
    void write_command(std::uint8_t value);
    void finish_command(std::uint8_t command, std::uint8_t value);
    void write_output_port(std::uint8_t value);
    void reply(std::uint8_t value, bool auxiliary = false);
    void fill();
    bool fill_from_keyboard();
    void take(std::uint8_t value, Source source, bool auxiliary);
    void set_a20(bool on);
    void update_irqs();

    Needs needs_;
    State state_;
    Data data_{*this};
    Command command_{*this};
};

} // namespace vmm::dev
