#include "devices/input/ps2_keyboard.h"

namespace vmm::dev {

namespace {
enum : std::uint8_t { cmd_set_leds = 0xed, cmd_echo = 0xee, cmd_scan_set = 0xf0, cmd_read_id = 0xf2 };
enum : std::uint8_t { cmd_typematic = 0xf3, cmd_enable = 0xf4, cmd_disable = 0xf5, cmd_defaults = 0xf6 };
enum : std::uint8_t { cmd_all_typematic = 0xf7, cmd_all_make_break = 0xf8, cmd_all_make = 0xf9 };
enum : std::uint8_t { cmd_all_everything = 0xfa, cmd_key_typematic = 0xfb, cmd_key_make_break = 0xfc };
enum : std::uint8_t { cmd_key_make = 0xfd, cmd_resend = 0xfe, cmd_reset = 0xff };
enum : std::uint8_t {
    held_shift = 1,
    held_shift_r = 2,
    held_ctrl = 4,
    held_ctrl_r = 8,
    held_alt = 16,
    held_alt_r = 32
};
constexpr std::uint8_t held_mask = 0x3f, led_mask = 0x07;

std::uint8_t modifier_bit(Key key) {
    switch (key) {
    case Key::shift: return held_shift;
    case Key::shift_r: return held_shift_r;
    case Key::ctrl: return held_ctrl;
    case Key::ctrl_r: return held_ctrl_r;
    case Key::alt: return held_alt;
    case Key::alt_r: return held_alt_r;
    default: return 0;
    }
}
} // namespace

template <class V> void fields(V& v, Ps2Keyboard::State& s) {
    v.field("replies", s.replies);
    v.field("codes", s.codes);
    v.field("set", s.set);
    v.field("scanning", s.scanning);
    v.field("set3_makes", s.set3_makes);
    v.field("leds", s.leds);
    v.field("typematic", s.typematic);
    v.field("pending_command", s.pending_command);
    v.field("last_sent", s.last_sent);
    v.field("modifiers", s.modifiers);
}

void Ps2Keyboard::key(Key code, bool down) {
    std::uint8_t modifier = modifier_bit(code);
    state_.modifiers = std::uint8_t(down ? state_.modifiers | modifier : state_.modifiers & ~modifier);
    if (!state_.scanning) return;
    ScanModifiers held{.shift_or_ctrl = (state_.modifiers & (held_shift | held_shift_r | held_ctrl | held_ctrl_r)) != 0,
                       .alt = (state_.modifiers & (held_alt | held_alt_r)) != 0};
    std::uint8_t id = set3_code(code);
    bool breaks = !(state_.set3_makes[id / 8] >> id % 8 & 1);
    ScanSequence sequence = scan_sequence(state_.set, code, down, held, breaks);
    if (sequence.count == 0) return;
    // One place is kept for the overrun code, so that a host that lost keys can know.
    if (state_.codes.has_room(sequence.count + 1)) {
        for (unsigned i = 0; i < sequence.count; ++i) state_.codes.push(sequence.bytes[i]);
    } else {
        std::uint8_t overrun = state_.set == ScanSet::set1 ? 0xff : 0x00;
        if (state_.codes.data[state_.codes.count - 1] != overrun) state_.codes.push(overrun);
    }
    if (on_output_) on_output_();
}

std::uint8_t Ps2Keyboard::take_output() {
    state_.last_sent = state_.replies.count ? state_.replies.pop() : state_.codes.pop();
    return state_.last_sent;
}

void Ps2Keyboard::reply(std::initializer_list<std::uint8_t> bytes) {
    for (std::uint8_t byte : bytes) state_.replies.push(byte);
    if (on_output_) on_output_();
}

void Ps2Keyboard::set_leds(std::uint8_t leds) {
    if (leds == state_.leds) return;
    state_.leds = leds;
    if (on_leds_) on_leds_(leds);
}

void Ps2Keyboard::set_defaults() {
    state_.set = ScanSet::set2;
    state_.set3_makes = {};
    state_.typematic = State{}.typematic;
    state_.codes.count = 0;
    set_leds(0);
}

void Ps2Keyboard::command(std::uint8_t byte) {
    // Arguments are below 0x80 or a key; a command byte in their place starts over.
    if (std::uint8_t pending = state_.pending_command) {
        state_.pending_command = 0;
        if (byte < cmd_set_leds) return argument(pending, byte);
    }
    switch (byte) {
    case cmd_set_leds:
    case cmd_scan_set:
    case cmd_typematic:
    case cmd_key_typematic:
    case cmd_key_make_break:
    case cmd_key_make: state_.pending_command = byte; return reply({ps2::ack});
    case cmd_echo: return reply({cmd_echo});
    case cmd_read_id: return reply({ps2::ack, 0xab, 0x83});
    case cmd_enable:
        state_.scanning = true;
        state_.codes.count = 0;
        return reply({ps2::ack});
    case cmd_disable:
        set_defaults();
        state_.scanning = false;
        return reply({ps2::ack});
    case cmd_defaults: set_defaults(); return reply({ps2::ack});
    case cmd_all_typematic:
    case cmd_all_make: state_.set3_makes.fill(0xff); return reply({ps2::ack});
    case cmd_all_make_break:
    case cmd_all_everything: state_.set3_makes = {}; return reply({ps2::ack});
    case cmd_resend: return reply({state_.last_sent});
    case cmd_reset:
        set_defaults();
        state_.scanning = true;
        state_.replies.count = 0;
        return reply({ps2::ack, ps2::self_test_passed});
    default: return reply({ps2::resend});
    }
}

void Ps2Keyboard::argument(std::uint8_t command, std::uint8_t byte) {
    switch (command) {
    case cmd_set_leds: set_leds(byte & led_mask); return reply({ps2::ack});
    case cmd_typematic: state_.typematic = byte & 0x7f; return reply({ps2::ack});
    case cmd_scan_set:
        if (byte == 0) return reply({ps2::ack, std::uint8_t(state_.set)});
        if (byte > 3) return reply({ps2::resend});
        state_.set = ScanSet(byte);
        state_.codes.count = 0;
        return reply({ps2::ack});
    default: set_key_type(byte, command == cmd_key_make_break); return reply({ps2::ack});
    }
}

// Typematic and make-only keys send no break codes.
void Ps2Keyboard::set_key_type(std::uint8_t set3_code, bool breaks) {
    auto bit = std::uint8_t(1u << set3_code % 8);
    std::uint8_t& bits = state_.set3_makes[set3_code / 8];
    bits = std::uint8_t(breaks ? bits & ~bit : bits | bit);
}

void Ps2Keyboard::reset() {
    std::uint8_t held = state_.modifiers; // fingers do not know of resets
    set_leds(0);
    state_ = State{};
    state_.modifiers = held;
}

void Ps2Keyboard::save(StateWriter& to) const { save_state(to, state_); }

Result<void> Ps2Keyboard::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.replies.count > Ps2Queue::capacity || loaded.codes.count > Ps2Queue::capacity)
        return error("the keyboard's queue holds more bytes than it has room for");
    if (loaded.set < ScanSet::set1 || loaded.set > ScanSet::set3)
        return error("the keyboard's scan code set {} does not exist", unsigned(loaded.set));
    if ((loaded.leds & ~led_mask) || (loaded.modifiers & ~held_mask))
        return error("the keyboard's state holds bits that do not exist");
    std::uint8_t leds = loaded.leds;
    loaded.leds = state_.leds;
    state_ = loaded;
    set_leds(leds);
    return {};
}

} // namespace vmm::dev
