#include "devices/timer/i8254.h"

#include <algorithm>

namespace vmm::dev {

namespace {
using Counter = I8254::Counter;

// Counter 0 interrupts at most this often when periodic; faster programs lose ticks that no guest could serve.
constexpr std::int64_t min_interrupt_ticks = 24; // 20 us

// Modes as the datasheet numbers them; M2 is ignored in modes 2 and 3.
enum Mode : unsigned {
    interrupt_on_terminal_count = 0,
    one_shot = 1, // hardware retriggerable
    rate_generator = 2,
    square_wave = 3,
    software_strobe = 4,
    hardware_strobe = 5,
};
unsigned mode_of(Counter const& c) {
    unsigned m = c.control >> 1 & 7;
    return m > 5 ? m & 3 : m;
}
bool periodic(Counter const& c) { return mode_of(c) == rate_generator || mode_of(c) == square_wave; }
bool gate_triggered(Counter const& c) { return mode_of(c) == one_shot || mode_of(c) == hardware_strobe; }
bool bcd(Counter const& c) { return c.control & 1; }
std::uint32_t modulus(Counter const& c) { return bcd(c) ? 10000 : 65536; }

std::uint32_t decode(Counter const& c, std::uint16_t raw) {
    std::uint32_t value = raw;
    if (bcd(c)) value = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15u);
    return value ? value : modulus(c); // 0 means the largest count
}
std::uint16_t encode(Counter const& c, std::uint32_t count) {
    count %= modulus(c);
    if (!bcd(c)) return std::uint16_t(count);
    return std::uint16_t((count / 1000) << 12 | (count / 100 % 10) << 8 | (count / 10 % 10) << 4 | count % 10);
}

// Ticks since the counting element was loaded.
std::int64_t elapsed(Counter const& c, std::int64_t now) {
    return std::max<std::int64_t>(c.paused ? c.held : now - c.start, 0);
}

bool out_at(Counter const& c, std::int64_t now) {
    if (!c.loaded) return mode_of(c) != interrupt_on_terminal_count;
    std::int64_t e = elapsed(c, now);
    switch (mode_of(c)) {
    case interrupt_on_terminal_count: return e >= c.period;
    case one_shot: return e >= c.period || (now < c.start && !c.retriggered);
    case rate_generator: return c.paused || c.period < 2 || e % c.period != c.period - 1;
    case square_wave: return c.paused || e % c.period < (c.period + 1) / 2;
    default: return e != c.period; // the strobes are low for the one tick at terminal count
    }
}

std::uint32_t count_at(Counter const& c, std::int64_t now) {
    std::int64_t e = elapsed(c, now);
    if (mode_of(c) == rate_generator) return c.period - std::uint32_t(e % c.period);
    if (mode_of(c) == square_wave) { // counts by two, through both halves
        auto phase = std::uint32_t(e % c.period), half = (c.period + 1) / 2;
        return (c.period & ~1u) - 2 * (phase < half ? phase : phase - half);
    }
    // The others wrap around and go on.
    std::uint32_t m = modulus(c);
    return (c.period % m + m - std::uint32_t(e % m)) % m;
}

// The first rising edge of OUT after tick `after`, or -1.
std::int64_t next_rise(Counter const& c, std::int64_t after) {
    if (!c.loaded || c.paused) return -1;
    if (periodic(c)) {
        if (c.period < 2) return -1;
        std::int64_t periods = after < c.start ? 1 : (after - c.start) / c.period + 1;
        return c.start + periods * c.period;
    }
    std::int64_t rise = c.start + c.period;
    if (mode_of(c) == software_strobe || mode_of(c) == hardware_strobe) ++rise;
    return rise > after ? rise : -1;
}

// Moves CR to the counting element at the next clock pulse.
void load_element(Counter& c, std::int64_t now) {
    bool shot_under_way = mode_of(c) == one_shot && !out_at(c, now);
    c.period = c.count_register;
    c.start = now + 1;
    c.retriggered = shot_under_way;
    c.held = 0;
    c.paused = !c.gate && !gate_triggered(c);
    c.loaded = true;
    c.reload_pending = false;
}

// In the periodic modes a count written while counting takes over at the end of the period under way.
void settle(Counter& c, std::int64_t now) {
    if (!periodic(c) || !c.loaded || !c.reload_pending || c.paused || now < c.start + c.period) return;
    c.start += c.period;
    c.period = c.count_register;
    c.reload_pending = false;
}

std::uint8_t status_of(Counter const& c, std::int64_t now) {
    bool null_count = c.reload_pending || !c.loaded || (!c.paused && now < c.start);
    return std::uint8_t(out_at(c, now) << 7 | null_count << 6 | (c.control & 0x3f));
}

void latch_count(Counter& c, std::int64_t now) {
    if (c.count_latched) return; // held until read
    c.count_latched = true;
    c.latched_count = encode(c, count_at(c, now));
}
} // namespace

I8254::I8254(Needs needs) : needs_(needs), timer_(needs.timers, [this] { timer_fired(); }) { reset(); }

void I8254::reset() {
    for (unsigned i = 0; i < 3; ++i) state_.counters[i] = Counter{.gate = i != 2};
    counter0_changed();
}

Result<void> I8254::load(StateReader& from) { return adopt(TRY(load_state<State>(from))); }

Result<void> I8254::adopt(State const& loaded) {
    constexpr std::int64_t latest = INT64_MAX / 4; // no sum of ticks overflows
    for (Counter const& c : loaded.counters) {
        if (c.period < 1 || c.period > 65536 || c.count_register > 65536 || c.control > 0x3f || c.held < 0 ||
            c.held > latest || c.start < 0 || c.start > latest || (c.reload_pending && !c.count_register))
            return error("the interval timer's state holds values an 8254 cannot have");
    }
    if (loaded.next_interrupt < -1 || loaded.next_interrupt > latest)
        return error("the interval timer's state holds an impossible time");
    state_ = loaded;
    if (state_.next_interrupt < 0 || !out0_watched_) return counter0_changed(), Result<void>();
    timer_.cancel();
    timer_.arm(state_.next_interrupt);
    needs_.out0.set(out(0));
    return {};
}

bool I8254::out(unsigned counter) const {
    Counter c = state_.counters[counter];
    settle(c, tick());
    return out_at(c, tick());
}

std::uint32_t I8254::oscillation_period(unsigned counter) const {
    Counter const& c = state_.counters[counter];
    return periodic(c) && c.loaded && !c.paused ? c.period : 0;
}

// Signals an edge that is due although the timer has not run yet; called before counter 0 changes.
void I8254::run_up_to_now() {
    if (!timer_.armed() || timer_.deadline() > needs_.timers.now()) return;
    timer_.cancel();
    timer_fired();
}

// Drives OUT 0 and arms for its next rising edge. The falling edge of the periodic modes needs no timer: nothing looks
// at the line between two rises.
void I8254::counter0_changed() {
    Counter& c = state_.counters[0];
    std::int64_t now = tick();
    settle(c, now);
    needs_.out0.set(out_at(c, now));
    bool too_fast = periodic(c) && c.period < min_interrupt_ticks;
    std::int64_t rise = next_rise(c, too_fast ? now + min_interrupt_ticks : now);
    state_.next_interrupt = -1;
    timer_.cancel();
    if (rise < 0 || !out0_watched_) return;
    state_.next_interrupt = clock.time_of(rise);
    timer_.arm(state_.next_interrupt);
}

void I8254::timer_fired() {
    needs_.out0.set(false);
    needs_.out0.set(true);
    counter0_changed();
}

void I8254::set_up_as_firmware() {
    write(3, 1, 0x34); // counter 0, two bytes, mode 2, binary
    write(0, 1, 0);
    write(0, 1, 0);
}

void I8254::watch_out0(bool watched) {
    if (watched == out0_watched_) return;
    out0_watched_ = watched;
    counter0_changed();
}

void I8254::set_gate(unsigned index, bool level) {
    Counter& c = state_.counters[index];
    if (c.gate == level) return;
    if (index == 0) run_up_to_now();
    std::int64_t now = tick();
    settle(c, now);
    c.gate = level;
    if (!level) {
        if (c.loaded && !gate_triggered(c) && !c.paused) {
            c.held = elapsed(c, now);
            c.paused = true;
        }
    } else if (gate_triggered(c) || periodic(c)) {
        if (c.count_register) load_element(c, now); // the trigger
    } else if (c.loaded && c.paused) {
        c.start = std::max<std::int64_t>(now - c.held, 0);
        c.paused = false;
    }
    if (index == 0) counter0_changed();
}

void I8254::write_control(std::uint8_t value) {
    unsigned select = value >> 6;
    if (select == 3) return read_back(value);
    Counter& c = state_.counters[select];
    if ((value & 0x30) == 0) { // counter latch command
        settle(c, tick());
        return latch_count(c, tick());
    }
    if (select == 0) run_up_to_now();
    c = Counter{.control = std::uint8_t(value & 0x3f), .gate = c.gate};
    if (select == 0) counter0_changed();
}

void I8254::read_back(std::uint8_t command) {
    for (unsigned i = 0; i < 3; ++i) {
        Counter& c = state_.counters[i];
        if (!(command >> (i + 1) & 1)) continue;
        settle(c, tick());
        if (!(command & 0x20)) latch_count(c, tick());
        if (!(command & 0x10) && !c.status_latched) {
            c.status_latched = true;
            c.latched_status = status_of(c, tick());
        }
    }
}

void I8254::write_count(Counter& c, std::uint8_t value) {
    std::int64_t now = tick();
    settle(c, now);
    std::uint16_t raw = value; // RW = 1: low byte only
    unsigned access = c.control >> 4 & 3;
    if (access == 2) raw = std::uint16_t(value << 8);
    if (access == 3) {
        c.write_high_next = !c.write_high_next;
        if (c.write_high_next) {
            c.write_low = value;
            if (mode_of(c) == interrupt_on_terminal_count) c.loaded = false; // the first byte stops the count, OUT low
            return;
        }
        raw = std::uint16_t(value << 8 | c.write_low);
    }
    c.count_register = decode(c, raw);
    if (!gate_triggered(c) && !(periodic(c) && c.loaded)) return load_element(c, now);
    // Gate-triggered modes wait for the trigger; a periodic count under way ends first.
    if (periodic(c) && !c.paused && now >= c.start) c.start += (now - c.start) / c.period * c.period;
    c.reload_pending = true;
}

std::uint8_t I8254::read_count(Counter& c) {
    if (c.status_latched) {
        c.status_latched = false;
        return c.latched_status;
    }
    settle(c, tick());
    std::uint16_t count = c.count_latched ? c.latched_count : encode(c, count_at(c, tick()));
    unsigned access = c.control >> 4 & 3;
    bool high = access == 2 || (access == 3 && c.read_high_next);
    if (access == 3) c.read_high_next = !c.read_high_next;
    if (access != 3 || !c.read_high_next) c.count_latched = false; // the latch holds until it is read whole
    return std::uint8_t(high ? count >> 8 : count);
}

std::uint64_t I8254::read(std::uint64_t offset, unsigned) {
    return offset < 3 ? read_count(state_.counters[offset]) : 0xff; // the control word cannot be read
}

void I8254::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    if (offset == 3) return write_control(std::uint8_t(value));
    if (offset > 3) return;
    if (offset == 0) run_up_to_now();
    write_count(state_.counters[offset], std::uint8_t(value));
    if (offset == 0) counter0_changed();
}

} // namespace vmm::dev
