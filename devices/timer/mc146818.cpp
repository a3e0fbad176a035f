#include "devices/timer/mc146818.h"

#include "devices/timer/calendar.h"
#include "devices/timer/rate.h"

#include <algorithm>

namespace vmm::dev {

namespace {
enum Register : std::uint8_t {
    seconds = 0x00,
    seconds_alarm = 0x01,
    minutes = 0x02,
    minutes_alarm = 0x03,
    hours = 0x04,
    hours_alarm = 0x05,
    day_of_week = 0x06, // 1 is Sunday
    day_of_month = 0x07,
    month = 0x08,
    year = 0x09,
    register_a = 0x0a,
    register_b = 0x0b,
    register_c = 0x0c,
    register_d = 0x0d,
};
constexpr std::uint8_t a_uip = 0x80, a_divider = 0x70, a_rate = 0x0f;
constexpr std::uint8_t b_set = 0x80, b_pie = 0x40, b_aie = 0x20, b_uie = 0x10, b_sqwe = 0x08, b_binary = 0x04,
                       b_24_hours = 0x02;
constexpr std::uint8_t c_irqf = 0x80, c_pf = 0x40, c_af = 0x20, c_uf = 0x10;
constexpr std::uint8_t d_vrt = 0x80; // the battery is good
constexpr std::uint8_t hours_pm = 0x80;

constexpr Rate oscillator{32768};
constexpr Nanoseconds second = nanoseconds_per_second;
constexpr Nanoseconds uip_lead = 244'000; // UIP rises this long before the registers change
// 64-bit nanoseconds reach from 1677 to 2262; the clock keeps to these years, and states beyond are refused.
constexpr std::int64_t first_year = 1800, last_year = 2199;
constexpr Nanoseconds time_limit = 8'000'000'000 * second;

bool is_time_register(std::uint8_t i) {
    return i == seconds || i == minutes || i == hours || (i >= day_of_week && i <= year) || i == Mc146818::century;
}
std::int64_t floor_seconds(Nanoseconds t) { return (t >= 0 ? t : t - (second - 1)) / second; }
} // namespace

Mc146818::Mc146818(Needs needs, Config config)
    : needs_(needs), slew_(config.slew), timer_(needs.timers, [this] { settle(); }) {
    state_.cmos[register_a] = 0x26; // 32768 Hz, 1024 Hz periodic: as firmware leaves it
    state_.cmos[register_b] = b_24_hours;
    state_.cmos[register_d] = d_vrt;
    state_.offset = config.base_offset;
    state_.flags_seen = needs_.timers.now();
    state_.second_seen = clock_time();
    reset();
}

void Mc146818::reset() {
    state_.cmos[register_b] &= std::uint8_t(~(b_pie | b_aie | b_uie | b_sqwe));
    state_.cmos[register_c] = 0;
    state_.owed = 0;
    state_.index = state_.extended_index = 0;
    state_.flags_seen = needs_.timers.now();
    if (!held()) state_.second_seen = clock_time();
    update_line();
    arm();
}

Result<void> Mc146818::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    auto sane = [](Nanoseconds t) { return t > -time_limit && t < time_limit; };
    Nanoseconds clock = 0;
    if (__builtin_add_overflow(needs_.wall.now(), loaded.offset, &clock) || !sane(clock) || !sane(loaded.second_seen) ||
        loaded.flags_seen < 0 || !sane(loaded.flags_seen) || loaded.held_part < 0 || loaded.held_part >= second ||
        loaded.weekday_skew > 6 || loaded.owed > max_owed)
        return error("the real-time clock's state holds an impossible time");
    state_ = loaded;
    update_line();
    arm();
    return {};
}

// The clock stands while SET is 1 or the divider chain is held in reset.
bool Mc146818::held() const {
    return (state_.cmos[register_b] & b_set) || (state_.cmos[register_a] & a_divider) >= 0x60;
}

std::uint8_t Mc146818::encode(unsigned value) const {
    if (state_.cmos[register_b] & b_binary) return std::uint8_t(value);
    return std::uint8_t((value / 10 % 10) << 4 | value % 10);
}

unsigned Mc146818::decode(std::uint8_t value) const {
    return state_.cmos[register_b] & b_binary ? value : (value >> 4) * 10u + (value & 15u);
}

std::uint8_t Mc146818::encode_hour(unsigned hour) const {
    if (state_.cmos[register_b] & b_24_hours) return encode(hour);
    return std::uint8_t(encode(hour % 12 ? hour % 12 : 12) | (hour >= 12 ? hours_pm : 0));
}

unsigned Mc146818::decode_hour(std::uint8_t value) const {
    if (state_.cmos[register_b] & b_24_hours) return decode(value);
    return decode(value & 0x7f) % 12 + (value & hours_pm ? 12 : 0);
}

// Puts the running clock's time into the registers.
void Mc146818::show_time() {
    CivilTime t = civil_from_seconds(floor_seconds(clock_time()));
    state_.cmos[seconds] = encode(t.second);
    state_.cmos[minutes] = encode(t.minute);
    state_.cmos[hours] = encode_hour(t.hour);
    state_.cmos[day_of_week] = encode((t.weekday + state_.weekday_skew) % 7 + 1);
    state_.cmos[day_of_month] = encode(t.day);
    state_.cmos[month] = encode(t.month);
    state_.cmos[year] = encode(unsigned((t.year % 100 + 100) % 100));
    state_.cmos[century] = encode(unsigned((t.year / 100 % 100 + 100) % 100));
}

// Takes the clock's time from the registers, whatever nonsense they hold: out-of-range values carry over.
void Mc146818::take_time() {
    CivilTime t{.year = std::int64_t(decode(state_.cmos[century])) * 100 + decode(state_.cmos[year]),
                .month = decode(state_.cmos[month]),
                .day = decode(state_.cmos[day_of_month]),
                .hour = decode_hour(state_.cmos[hours]),
                .minute = decode(state_.cmos[minutes]),
                .second = decode(state_.cmos[seconds])};
    if (t.year < first_year || t.year > last_year) t.year = 2000 + t.year % 100;
    std::int64_t s = seconds_from_civil(t);
    unsigned weekday = (decode(state_.cmos[day_of_week]) + 6) % 7;
    state_.weekday_skew = std::uint8_t((weekday + 7 - civil_from_seconds(s).weekday) % 7);
    Nanoseconds part = state_.held_part;
    state_.offset = s * second + part - needs_.wall.now();
    state_.second_seen = clock_time();
}

Nanoseconds Mc146818::periodic_interval_ticks() const {
    unsigned rate = state_.cmos[register_a] & a_rate;
    if (rate == 0 || (state_.cmos[register_a] & a_divider) >= 0x60) return 0;
    if (rate <= 2) rate += 7; // datasheet table 5: 1 and 2 are 256 and 128 Hz with the 32768 Hz time base
    return 1ll << (rate - 1);
}

// The first second after `after` that matches the alarm registers, or INT64_MAX. Values 0xc0..0xff match anything.
std::int64_t Mc146818::next_alarm(std::int64_t after) const {
    auto matches = [](std::uint8_t alarm, unsigned wanted, unsigned value) { return alarm >= 0xc0 || wanted == value; };
    std::uint8_t const ah = state_.cmos[hours_alarm], am = state_.cmos[minutes_alarm], as = state_.cmos[seconds_alarm];
    unsigned const wanted_hour = decode_hour(ah), wanted_minute = decode(am), wanted_second = decode(as);
    std::int64_t at = after + 1, end = after + 1 + 86400 + 3600;
    while (at < end) { // skips whole hours and minutes that do not match: at most 25 + 60 + 60 rounds
        CivilTime t = civil_from_seconds(at);
        if (!matches(ah, wanted_hour, t.hour))
            at += 3600 - t.minute * 60 - t.second;
        else if (!matches(am, wanted_minute, t.minute))
            at += 60 - t.second;
        else if (!matches(as, wanted_second, t.second))
            ++at;
        else
            return at;
    }
    return INT64_MAX;
}

// Sets the flags for everything that happened since they were last looked at, drives IRQ 8, and arms for what comes.
void Mc146818::settle() {
    std::uint8_t& flags = state_.cmos[register_c];
    Nanoseconds now = needs_.timers.now();
    if (Nanoseconds ticks = periodic_interval_ticks()) {
        auto count = [&](Nanoseconds t) { return oscillator.ticks_at(t) / ticks; };
        auto passed = std::uint64_t(std::max<std::int64_t>(0, count(now) - count(state_.flags_seen)));
        if (slew_ && passed && (state_.cmos[register_b] & b_pie)) {
            std::uint64_t lost = passed - (flags & c_pf ? 0 : 1);
            state_.owed = std::uint32_t(std::min<std::uint64_t>(state_.owed + lost, max_owed));
        }
        if (passed) flags |= c_pf;
    }
    state_.flags_seen = std::max(now, state_.flags_seen);
    if (!held()) {
        std::int64_t from = floor_seconds(state_.second_seen), to = floor_seconds(clock_time());
        if (to > from) {
            flags |= c_uf;
            if (next_alarm(from) <= to) flags |= c_af;
        }
        state_.second_seen = clock_time();
    }
    update_line();
    arm();
}

void Mc146818::update_line() {
    std::uint8_t& flags = state_.cmos[register_c];
    bool interrupt = flags & state_.cmos[register_b] & (c_pf | c_af | c_uf);
    flags = std::uint8_t((flags & (c_pf | c_af | c_uf)) | (interrupt ? c_irqf : 0));
    needs_.irq.set(interrupt);
}

// Arms for the earliest enabled interrupt whose flag is not up yet.
void Mc146818::arm() {
    std::uint8_t wanted = state_.cmos[register_b] & ~state_.cmos[register_c];
    Nanoseconds now = needs_.timers.now(), next = TimerQueue::never;
    Nanoseconds ticks = periodic_interval_ticks();
    if ((wanted & b_pie) && ticks) next = oscillator.time_of((oscillator.ticks_at(now) / ticks + 1) * ticks);
    if (!held()) {
        Nanoseconds clock = clock_time();
        std::int64_t at = floor_seconds(clock);
        auto in = [&](std::int64_t s) { return now + (s * second - clock); };
        if (wanted & b_uie) next = std::min(next, in(at + 1));
        std::int64_t alarm = wanted & b_aie ? next_alarm(at) : INT64_MAX;
        if (alarm != INT64_MAX) next = std::min(next, in(alarm));
    }
    if (next == TimerQueue::never)
        timer_.cancel();
    else
        timer_.arm(next);
}

std::uint8_t Mc146818::read_register(std::uint8_t index) {
    if (is_time_register(index) && !held()) show_time();
    switch (index) {
    case register_a: {
        if (held()) return state_.cmos[register_a];
        Nanoseconds clock = clock_time(), part = clock - floor_seconds(clock) * second;
        return std::uint8_t(state_.cmos[register_a] | (part >= second - uip_lead ? a_uip : 0));
    }
    case register_c: { // reading clears it
        settle();
        std::uint8_t flags = state_.cmos[register_c];
        state_.cmos[register_c] = 0;
        update_line();
        if (state_.owed && (state_.cmos[register_b] & b_pie)) { // the line has been low: another edge at once
            --state_.owed;
            state_.cmos[register_c] = c_pf;
            update_line();
        }
        arm();
        return flags;
    }
    default: return state_.cmos[index];
    }
}

void Mc146818::write_control(std::uint8_t index, std::uint8_t value) {
    settle(); // what happened so far happened under the old settings
    bool const was_held = held(), was_divider_reset = (state_.cmos[register_a] & a_divider) >= 0x60;
    if (!was_held) {
        show_time(); // in the old format; the registers are re-read in the new one only if software writes them
        Nanoseconds clock = clock_time();
        state_.held_part = clock - floor_seconds(clock) * second;
    }
    if (index == register_a) {
        state_.cmos[register_a] = value & ~a_uip;
        // The first update comes half a second after the divider is released.
        if (was_divider_reset && (value & a_divider) < 0x60) state_.held_part = second / 2;
    } else {
        if (value & b_set) value &= std::uint8_t(~b_uie); // datasheet: SET clears UIE
        state_.cmos[register_b] = value;
        if (!(value & b_pie)) state_.owed = 0;
    }
    if (was_held && !held()) take_time();
    settle();
}

void Mc146818::write_register(std::uint8_t index, std::uint8_t value) {
    if (index == register_c || index == register_d) return;
    if (index == register_a || index == register_b) return write_control(index, value);
    if (!is_time_register(index)) {
        settle();
        state_.cmos[index] = value;
        arm(); // it may be an alarm register
        return;
    }
    if (held()) {
        state_.cmos[index] = value;
        return;
    }
    settle();
    show_time();
    Nanoseconds clock = clock_time();
    state_.held_part = clock - floor_seconds(clock) * second;
    state_.cmos[index] = value;
    take_time();
    arm();
}

std::uint64_t Mc146818::read(std::uint64_t offset, unsigned) {
    switch (offset) {
    case 1: return read_register(state_.index & 0x7f);
    case 2: return state_.extended_index;
    case 3: return state_.extended[state_.extended_index & 0x7f];
    default: return 0xff; // the index register is write-only
    }
}

void Mc146818::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    auto byte = std::uint8_t(value);
    switch (offset) {
    case 0: state_.index = byte; break;
    case 1: write_register(state_.index & 0x7f, byte); break;
    case 2: state_.extended_index = byte; break;
    case 3: state_.extended[state_.extended_index & 0x7f] = byte; break;
    }
}

} // namespace vmm::dev
