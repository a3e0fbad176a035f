#include "devices/input/ps2_mouse.h"

#include <algorithm>

namespace vmm::dev {

namespace {
enum : std::uint8_t { cmd_scale_1to1 = 0xe6, cmd_scale_2to1 = 0xe7, cmd_resolution = 0xe8, cmd_status = 0xe9 };
enum : std::uint8_t { cmd_stream = 0xea, cmd_read_data = 0xeb, cmd_unwrap = 0xec, cmd_wrap = 0xee };
enum : std::uint8_t { cmd_remote = 0xf0, cmd_read_id = 0xf2, cmd_rate = 0xf3, cmd_enable = 0xf4 };
enum : std::uint8_t { cmd_disable = 0xf5, cmd_defaults = 0xf6, cmd_resend = 0xfe, cmd_reset = 0xff };
constexpr std::uint8_t button_mask = 0x1f;
constexpr int max_unreported = 4096; // what a guest that does not listen is told of at most

// The 2:1 scaling of stream mode.
int scaled(int value) {
    constexpr int small[] = {0, 1, 1, 3, 6, 9};
    int size = std::abs(value), result = size < 6 ? small[size] : size * 2;
    return value < 0 ? -result : result;
}

// Takes what fits one packet out of `total`.
int take(std::int32_t& total, int low, int high) {
    int part = std::clamp(total, low, high);
    total -= part;
    return part;
}
} // namespace

template <class V> void fields(V& v, Ps2Mouse::State& s) {
    v.field("output", s.output);
    v.field("protocol", s.protocol);
    v.field("reporting", s.reporting);
    v.field("remote", s.remote);
    v.field("wrap", s.wrap);
    v.field("double_scaling", s.double_scaling);
    v.field("resolution", s.resolution);
    v.field("rate", s.rate);
    v.field("last_rates", s.last_rates);
    v.field("pending_command", s.pending_command);
    v.field("last_sent", s.last_sent);
    v.field("dx", s.dx);
    v.field("dy", s.dy);
    v.field("dz", s.dz);
    v.field("buttons", s.buttons);
    v.field("reported_buttons", s.reported_buttons);
}

void Ps2Mouse::mouse(int dx, int dy, int dz, std::uint8_t buttons) {
    auto add = [](std::int32_t& total, int more) {
        more = std::clamp(more, -max_unreported, max_unreported);
        total = std::clamp(total + more, -max_unreported, max_unreported);
    };
    state_.buttons = buttons & button_mask;
    if (state_.reporting || state_.remote) {
        add(state_.dx, dx);
        add(state_.dy, dy);
        add(state_.dz, dz);
    }
    if (report_if_idle() && on_output_) on_output_();
}

bool Ps2Mouse::something_to_report() const {
    bool wheel = state_.protocol != Protocol::standard && state_.dz;
    return state_.dx || state_.dy || wheel || state_.buttons != state_.reported_buttons;
}

// Whether a packet was made.
bool Ps2Mouse::report_if_idle() {
    if (!state_.reporting || state_.remote || state_.wrap || state_.output.count || !something_to_report())
        return false;
    push_packet();
    return true;
}

void Ps2Mouse::push_packet() {
    bool explorer = state_.protocol == Protocol::explorer;
    int dx = take(state_.dx, -127, 127), dy = -take(state_.dy, -127, 127);
    int dz = explorer ? take(state_.dz, -8, 7) : take(state_.dz, -127, 127);
    if (state_.double_scaling && !state_.remote) dx = scaled(dx), dy = scaled(dy);
    state_.reported_buttons = state_.buttons;
    state_.output.push(std::uint8_t(0x08 | (state_.buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
    state_.output.push(std::uint8_t(dx));
    state_.output.push(std::uint8_t(dy));
    if (state_.protocol == Protocol::wheel) state_.output.push(std::uint8_t(dz));
    if (explorer) state_.output.push(std::uint8_t((dz & 0x0f) | (state_.buttons & 0x18) << 1));
}

std::uint8_t Ps2Mouse::take_output() {
    state_.last_sent = state_.output.pop();
    report_if_idle(); // whoever takes bytes asks for the next by itself
    return state_.last_sent;
}

void Ps2Mouse::reply(std::initializer_list<std::uint8_t> bytes) {
    for (std::uint8_t byte : bytes) state_.output.push(byte);
    if (on_output_) on_output_();
}

void Ps2Mouse::set_defaults() {
    State defaults;
    state_.reporting = state_.remote = state_.wrap = state_.double_scaling = false;
    state_.resolution = defaults.resolution;
    state_.rate = defaults.rate;
    state_.dx = state_.dy = state_.dz = 0;
}

void Ps2Mouse::set_rate(std::uint8_t rate) {
    state_.rate = rate;
    state_.last_rates = {state_.last_rates[1], state_.last_rates[2], rate};
    if (state_.last_rates == std::array<std::uint8_t, 3>{200, 100, 80}) state_.protocol = Protocol::wheel;
    if (state_.last_rates == std::array<std::uint8_t, 3>{200, 200, 80}) state_.protocol = Protocol::explorer;
}

void Ps2Mouse::command(std::uint8_t byte) {
    if (state_.wrap && byte != cmd_unwrap && byte != cmd_reset) return reply({byte});
    // A command stops whatever packet was on its way.
    state_.output.count = 0;
    if (std::uint8_t pending = state_.pending_command) {
        state_.pending_command = 0;
        return argument(pending, byte);
    }
    switch (byte) {
    case cmd_scale_1to1:
    case cmd_scale_2to1: state_.double_scaling = byte == cmd_scale_2to1; return reply({ps2::ack});
    case cmd_resolution:
    case cmd_rate: state_.pending_command = byte; return reply({ps2::ack});
    case cmd_status: {
        auto buttons = std::uint8_t((state_.buttons & mouse_left ? 4 : 0) | (state_.buttons & mouse_middle ? 2 : 0) |
                                    (state_.buttons & mouse_right ? 1 : 0));
        auto mode = std::uint8_t((state_.remote ? 0x40 : 0) | (state_.reporting ? 0x20 : 0) |
                                 (state_.double_scaling ? 0x10 : 0));
        return reply({ps2::ack, std::uint8_t(mode | buttons), state_.resolution, state_.rate});
    }
    case cmd_stream: state_.remote = false; return reply({ps2::ack});
    case cmd_read_data:
        state_.output.push(ps2::ack);
        push_packet();
        return reply({});
    case cmd_unwrap:
    case cmd_wrap: state_.wrap = byte == cmd_wrap; return reply({ps2::ack});
    case cmd_remote: state_.remote = true; return reply({ps2::ack});
    case cmd_read_id: return reply({ps2::ack, std::uint8_t(state_.protocol)});
    case cmd_enable:
    case cmd_disable:
        state_.reporting = byte == cmd_enable;
        state_.dx = state_.dy = state_.dz = 0;
        return reply({ps2::ack});
    case cmd_defaults: set_defaults(); return reply({ps2::ack});
    case cmd_resend: return reply({state_.last_sent});
    case cmd_reset:
        set_defaults();
        state_.protocol = Protocol::standard;
        state_.last_rates = {};
        return reply({ps2::ack, ps2::self_test_passed, 0x00});
    default: return reply({ps2::resend});
    }
}

void Ps2Mouse::argument(std::uint8_t command, std::uint8_t byte) {
    if (command == cmd_rate)
        set_rate(byte);
    else
        state_.resolution = byte & 3;
    reply({ps2::ack});
}

void Ps2Mouse::reset() {
    std::uint8_t held = state_.buttons;
    state_ = State{};
    state_.buttons = state_.reported_buttons = held;
}

void Ps2Mouse::save(StateWriter& to) const { save_state(to, state_); }

Result<void> Ps2Mouse::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.output.count > Ps2Queue::capacity)
        return error("the mouse's queue holds more bytes than it has room for");
    if (loaded.protocol != Protocol::standard && loaded.protocol != Protocol::wheel &&
        loaded.protocol != Protocol::explorer)
        return error("the mouse protocol {} does not exist", unsigned(loaded.protocol));
    for (std::int32_t movement : {loaded.dx, loaded.dy, loaded.dz})
        if (movement < -max_unreported || movement > max_unreported)
            return error("the mouse has moved further than it can");
    if ((loaded.buttons | loaded.reported_buttons) & ~button_mask || loaded.resolution > 3)
        return error("the mouse's state holds bits that do not exist");
    state_ = loaded;
    return {};
}

} // namespace vmm::dev
