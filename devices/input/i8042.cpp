#include "devices/input/i8042.h"

#include "devices/input/scancodes.h"

namespace vmm::dev {

namespace {
enum : std::uint8_t { status_obf = 0x01, status_system = 0x04, status_command = 0x08, status_unlocked = 0x10 };
enum : std::uint8_t { status_auxiliary = 0x20 };
// The command byte.
enum : std::uint8_t { ctr_keyboard_irq = 0x01, ctr_auxiliary_irq = 0x02, ctr_system = 0x04 };
enum : std::uint8_t { ctr_keyboard_off = 0x10, ctr_auxiliary_off = 0x20, ctr_translate = 0x40 };
// Commands at port 0x64.
enum : std::uint8_t { cmd_read_ram = 0x20, cmd_write_ram = 0x60, cmd_password_installed = 0xa4 };
enum : std::uint8_t { cmd_load_password = 0xa5, cmd_disable_auxiliary = 0xa7, cmd_enable_auxiliary = 0xa8 };
enum : std::uint8_t { cmd_test_auxiliary = 0xa9, cmd_self_test = 0xaa, cmd_test_keyboard = 0xab };
enum : std::uint8_t { cmd_disable_keyboard = 0xad, cmd_enable_keyboard = 0xae, cmd_read_input_port = 0xc0 };
enum : std::uint8_t { cmd_read_output_port = 0xd0, cmd_write_output_port = 0xd1, cmd_write_keyboard_output = 0xd2 };
enum : std::uint8_t { cmd_write_auxiliary_output = 0xd3, cmd_write_auxiliary = 0xd4, cmd_disable_a20 = 0xdd };
enum : std::uint8_t { cmd_enable_a20 = 0xdf, cmd_read_test_inputs = 0xe0, cmd_pulse_output = 0xf0 };
enum : std::uint8_t { port_not_reset = 0x01, port_a20 = 0x02, port_keyboard_irq = 0x10, port_auxiliary_irq = 0x20 };
constexpr std::uint8_t port_idle_lines = 0xc0;
constexpr std::uint8_t input_port_unlocked = 0x80, no_password = 0xf1, self_test_passed = 0x55, test_passed = 0x00;
constexpr std::uint8_t break_prefix = 0xf0;
} // namespace

template <class V> void fields(V& v, I8042::State& s) {
    v.field("ram", s.ram);
    v.field("output", s.output);
    v.field("source", s.source);
    v.field("output_auxiliary", s.output_auxiliary);
    v.field("reply", s.reply);
    v.field("reply_waiting", s.reply_waiting);
    v.field("reply_auxiliary", s.reply_auxiliary);
    v.field("pending_command", s.pending_command);
    v.field("last_was_command", s.last_was_command);
    v.field("system_flag", s.system_flag);
    v.field("a20", s.a20);
    v.field("break_prefix", s.break_prefix);
}

I8042::I8042(Needs needs) : needs_(needs) {
    needs_.keyboard.set_on_output([this] { fill(); });
    needs_.auxiliary.set_on_output([this] { fill(); });
    set_a20(true);
}

std::uint8_t I8042::status() const {
    bool full = state_.source != Source::none;
    return std::uint8_t(status_unlocked | (full ? status_obf : 0) |
                        (full && state_.output_auxiliary ? status_auxiliary : 0) |
                        (state_.last_was_command ? status_command : 0) | (state_.system_flag ? status_system : 0));
}

std::uint8_t I8042::output_port() const {
    bool full = state_.source != Source::none;
    return std::uint8_t(port_idle_lines | port_not_reset | (state_.a20 ? port_a20 : 0) |
                        (full && !state_.output_auxiliary ? port_keyboard_irq : 0) |
                        (full && state_.output_auxiliary ? port_auxiliary_irq : 0));
}

std::uint8_t I8042::read_data() {
    std::uint8_t value = state_.output;
    state_.source = Source::none;
    update_irqs(); // falls before the next byte makes it rise: each byte is an edge
    fill();
    return value;
}

// Loads the output buffer when it is empty.
void I8042::fill() {
    if (state_.source != Source::none) return;
    if (state_.reply_waiting) {
        state_.reply_waiting = false;
        return take(state_.reply, Source::controller, state_.reply_auxiliary);
    }
    if (fill_from_keyboard()) return;
    if (!(command_byte() & ctr_auxiliary_off) && needs_.auxiliary.has_output())
        take(needs_.auxiliary.take_output(), Source::auxiliary, true);
}

bool I8042::fill_from_keyboard() {
    while (!(command_byte() & ctr_keyboard_off) && needs_.keyboard.has_output()) {
        std::uint8_t byte = needs_.keyboard.take_output();
        if (command_byte() & ctr_translate) {
            if (byte == break_prefix) {
                state_.break_prefix = true;
                continue;
            }
            byte = std::uint8_t(translate_set2(byte) | (state_.break_prefix ? 0x80 : 0));
            state_.break_prefix = false;
        }
        take(byte, Source::keyboard, false);
        return true;
    }
    return false;
}

void I8042::take(std::uint8_t value, Source source, bool auxiliary) {
    state_.output = value;
    state_.source = source;
    state_.output_auxiliary = auxiliary;
    update_irqs();
}

void I8042::reply(std::uint8_t value, bool auxiliary) {
    state_.reply = value;
    state_.reply_waiting = true;
    state_.reply_auxiliary = auxiliary;
    // A newer reply replaces an unread one, as writing the buffer again does.
    if (state_.source == Source::controller) state_.source = Source::none;
    update_irqs();
    fill();
}

void I8042::update_irqs() {
    bool full = state_.source != Source::none;
    needs_.keyboard_irq.set(full && !state_.output_auxiliary && (command_byte() & ctr_keyboard_irq));
    needs_.auxiliary_irq.set(full && state_.output_auxiliary && (command_byte() & ctr_auxiliary_irq));
}

void I8042::set_a20(bool on) {
    state_.a20 = on;
    needs_.a20.set(on);
}

void I8042::write_output_port(std::uint8_t value) {
    set_a20(value & port_a20);
    if (!(value & port_not_reset)) needs_.reset.pulse();
}

void I8042::write_data(std::uint8_t value) {
    state_.last_was_command = false;
    if (std::uint8_t command = state_.pending_command) {
        state_.pending_command = 0;
        return finish_command(command, value);
    }
    // Talking to the keyboard switches its interface on.
    state_.ram[0] &= std::uint8_t(~ctr_keyboard_off);
    needs_.keyboard.command(value);
    fill();
}

void I8042::finish_command(std::uint8_t command, std::uint8_t value) {
    switch (command) {
    case cmd_load_password:
        if (value) state_.pending_command = cmd_load_password; // until the zero that ends it; kept nowhere
        break;
    case cmd_write_output_port: write_output_port(value); break;
    case cmd_write_keyboard_output: reply(value); break;
    case cmd_write_auxiliary_output: reply(value, true); break;
    case cmd_write_auxiliary:
        state_.ram[0] &= std::uint8_t(~ctr_auxiliary_off);
        needs_.auxiliary.command(value);
        fill();
        break;
    default: // writing controller RAM
        state_.ram[command - cmd_write_ram] = value;
        if (command != cmd_write_ram) break;
        state_.system_flag = value & ctr_system;
        update_irqs();
        fill();
        break;
    }
}

void I8042::write_command(std::uint8_t value) {
    state_.last_was_command = true;
    state_.pending_command = 0;
    if (value >= cmd_read_ram && value < cmd_read_ram + 0x20) return reply(state_.ram[value - cmd_read_ram]);
    if (value >= cmd_write_ram && value < cmd_write_ram + 0x20) {
        state_.pending_command = value;
        return;
    }
    if (value >= cmd_pulse_output) {
        if (!(value & port_not_reset)) needs_.reset.pulse();
        return;
    }
    std::uint8_t& ctr = state_.ram[0];
    switch (value) {
    case cmd_password_installed: return reply(no_password);
    case cmd_load_password:
    case cmd_write_output_port:
    case cmd_write_keyboard_output:
    case cmd_write_auxiliary_output:
    case cmd_write_auxiliary: state_.pending_command = value; return;
    case cmd_disable_auxiliary: ctr |= ctr_auxiliary_off; return;
    case cmd_enable_auxiliary: ctr &= std::uint8_t(~ctr_auxiliary_off); return fill();
    case cmd_test_auxiliary:
    case cmd_test_keyboard: return reply(test_passed);
    case cmd_self_test: state_.system_flag = true; return reply(self_test_passed);
    case cmd_disable_keyboard: ctr |= ctr_keyboard_off; return;
    case cmd_enable_keyboard: ctr &= std::uint8_t(~ctr_keyboard_off); return fill();
    case cmd_read_input_port: return reply(input_port_unlocked);
    case cmd_read_output_port: return reply(output_port());
    case cmd_disable_a20:
    case cmd_enable_a20: return set_a20(value == cmd_enable_a20);
    case cmd_read_test_inputs: return reply(0);
    default: needs_.log.guest_error("i8042: command {:#x} does not exist", value);
    }
}

void I8042::set_up_as_firmware() {
    state_.system_flag = true;
    state_.ram[0] = ctr_keyboard_irq | ctr_auxiliary_irq | ctr_system | ctr_translate;
    update_irqs();
}

void I8042::reset() {
    state_ = State{};
    set_a20(true);
    update_irqs();
}

void I8042::save(StateWriter& to) const { save_state(to, state_); }

Result<void> I8042::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.source > Source::auxiliary) return error("the keyboard controller's output comes from nowhere");
    std::uint8_t pending = loaded.pending_command;
    bool ram = pending >= cmd_write_ram && pending < cmd_write_ram + 0x20;
    bool other = pending == cmd_load_password || (pending >= cmd_write_output_port && pending <= cmd_write_auxiliary);
    if (pending && !ram && !other) return error("the keyboard controller's command {:#x} takes no argument", pending);
    state_ = loaded;
    set_a20(state_.a20);
    update_irqs();
    return {};
}

} // namespace vmm::dev
