#include "devices/timer/hpet.h"

#include <algorithm>

namespace vmm::dev {

namespace {
// Register offsets (section 2.3.1); a timer's are relative to 0x100 + 0x20 n.
constexpr std::uint64_t gcap_id = 0x000, gen_conf = 0x010, gintr_sta = 0x020, main_cnt = 0x0f0, timers_base = 0x100;
constexpr std::uint64_t timer_stride = 0x20, tn_conf = 0x00, tn_comp = 0x08, tn_fsb = 0x10;

constexpr std::uint64_t enable_cnf = 1, leg_rt_cnf = 2;
constexpr std::uint32_t int_type_level = 1 << 1, int_enb = 1 << 2, type_periodic = 1 << 3, per_int_cap = 1 << 4,
                        size_cap_64 = 1 << 5, val_set = 1 << 6, mode_32 = 1 << 8, route_mask = 31 << 9,
                        fsb_enable = 1 << 14, fsb_cap = 1 << 15;
constexpr std::uint32_t timer_writable =
    int_type_level | int_enb | type_periodic | val_set | mode_32 | route_mask | fsb_enable;

constexpr std::uint64_t period_femtoseconds = std::uint64_t(Hpet::tick) * 1'000'000;
// A periodic timer interrupts at most this often (20 us), whatever its period: protection for the host.
constexpr std::uint64_t min_interrupt_ticks = 2000;
constexpr std::uint64_t out_of_reach = 1ull << 58;

using TimerState = Hpet::TimerState;
std::uint64_t width_mask(TimerState const& t) { return t.config & mode_32 ? 0xffffffff : ~0ull; }
bool periodic(TimerState const& t) { return t.config & type_periodic; }
unsigned route(std::uint32_t config) { return (config & route_mask) >> 9; }

// Ticks from `seen` to the next match; one that is equal now matches after a whole turn.
std::uint64_t distance(TimerState const& t) {
    std::uint64_t d = (t.comparator - t.seen) & width_mask(t);
    if (d) return d;
    return t.config & mode_32 ? 1ull << 32 : ~0ull;
}
} // namespace

Hpet::Hpet(Needs needs, Config config)
    : needs_(std::move(needs)), config_(config), pit_input_(*this, &State::pit_level, needs_.irq0),
      rtc_input_(*this, &State::rtc_level, needs_.irq8) {
    for (unsigned n = 0; n < timer_count; ++n)
        timers_[n] = std::make_unique<Timer>(needs_.timers, [this, n] {
            settle(n);
            arm(n);
        });
}

void Hpet::ReplacedLine::set(bool value) {
    hpet.state_.*level = value;
    if (!hpet.legacy()) out.set(value);
}

void Hpet::reset() {
    drive(false);
    state_ = State{.pit_level = state_.pit_level, .rtc_level = state_.rtc_level, .timers = {}};
    for (auto& timer : timers_) timer->cancel();
    if (needs_.on_legacy) needs_.on_legacy(false);
    needs_.irq0.set(state_.pit_level);
    needs_.irq8.set(state_.rtc_level);
}

Result<void> Hpet::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.counter_start < 0 || loaded.counter_start > INT64_MAX / 4 ||
        (loaded.config & ~(enable_cnf | leg_rt_cnf)) || loaded.status >> timer_count)
        return error("the HPET's state holds values it cannot have");
    for (TimerState const& t : loaded.timers) {
        bool bad_route = route(t.config) && !(config_.route_capability >> route(t.config) & 1);
        if ((t.config & ~timer_writable) || bad_route || (t.comparator & ~width_mask(t)) ||
            ((t.config & fsb_enable) && !needs_.msi))
            return error("a timer in the HPET's state holds values it cannot have");
    }
    drive(false);
    state_ = loaded;
    if (needs_.on_legacy) needs_.on_legacy(legacy());
    if (!legacy()) {
        needs_.irq0.set(state_.pit_level);
        needs_.irq8.set(state_.rtc_level);
    }
    drive(true);
    for (unsigned n = 0; n < timer_count; ++n) arm(n);
    return {};
}

bool Hpet::running() const { return state_.config & enable_cnf; }
bool Hpet::legacy() const { return state_.config & leg_rt_cnf; }

std::uint64_t Hpet::counter() const {
    if (!running()) return state_.counter;
    return state_.counter + std::uint64_t(std::max<Nanoseconds>(needs_.timers.now() - state_.counter_start, 0) / tick);
}

// The line a timer drives, or null (not routed, or by FSB).
IrqLine* Hpet::line_of(unsigned n) const {
    TimerState const& t = state_.timers[n];
    if (t.config & fsb_enable) return nullptr;
    if (legacy() && n < 2) return n == 0 ? &needs_.irq0 : &needs_.irq8;
    return route(t.config) < needs_.pins.size() ? needs_.pins[route(t.config)] : nullptr;
}

// Drives the lines of the level-triggered timers that have their status bit set.
void Hpet::drive(bool asserted) {
    for (unsigned n = 0; n < timer_count; ++n) {
        if (!(state_.status >> n & 1) || !(state_.timers[n].config & int_enb)) continue;
        if (IrqLine* line = line_of(n)) line->set(asserted);
    }
}

// Deals with the matches since the last look.
void Hpet::settle(unsigned n) {
    TimerState& t = state_.timers[n];
    std::uint64_t now = counter(), passed = now - t.seen, to_match = distance(t);
    t.seen = now;
    if (to_match > passed) return;
    if (periodic(t) && t.period)
        t.comparator = (t.comparator + ((passed - to_match) / t.period + 1) * t.period) & width_mask(t);
    fire(n);
}

void Hpet::settle_all() {
    for (unsigned n = 0; n < timer_count; ++n) settle(n);
}

void Hpet::fire(unsigned n) {
    TimerState const& t = state_.timers[n];
    bool level = t.config & int_type_level;
    if (level) state_.status |= 1u << n;
    if (!(t.config & int_enb)) return;
    if (t.config & fsb_enable) {
        needs_.msi->deliver_msi(t.fsb_route >> 32, std::uint32_t(t.fsb_route));
    } else if (IrqLine* line = line_of(n)) {
        if (level)
            line->set(true);
        else
            line->pulse();
    }
}

void Hpet::arm(unsigned n) {
    TimerState const& t = state_.timers[n];
    std::uint64_t ticks = distance(t);
    if (periodic(t) && t.period && t.period < min_interrupt_ticks && ticks < min_interrupt_ticks)
        ticks += (min_interrupt_ticks - ticks) / t.period * t.period;
    if (!running() || !(t.config & int_enb) || ticks > out_of_reach) return timers_[n]->cancel();
    // `seen` may lie before the counter when a state was loaded; then the match may be due already.
    std::uint64_t since_start = t.seen - state_.counter + ticks;
    if (since_start > out_of_reach) return timers_[n]->cancel();
    timers_[n]->arm(state_.counter_start + Nanoseconds(since_start) * tick);
}

std::uint64_t Hpet::capabilities() const {
    constexpr std::uint64_t revision = 1, count_size_64 = 1 << 13, leg_rt_cap = 1 << 15, vendor_intel = 0x8086;
    return period_femtoseconds << 32 | vendor_intel << 16 | leg_rt_cap | count_size_64 | (timer_count - 1) << 8 |
           revision;
}

std::uint64_t Hpet::timer_config(unsigned n) const {
    return std::uint64_t(config_.route_capability) << 32 | (needs_.msi ? fsb_cap : 0) | size_cap_64 | per_int_cap |
           state_.timers[n].config;
}

std::uint64_t Hpet::read_register(std::uint64_t offset) const {
    switch (offset) {
    case gcap_id: return capabilities();
    case gen_conf: return state_.config;
    case gintr_sta: return state_.status;
    case main_cnt: return counter();
    default: break;
    }
    if (offset < timers_base || offset >= timers_base + timer_count * timer_stride) return 0;
    auto n = unsigned((offset - timers_base) / timer_stride);
    switch (offset % timer_stride) {
    case tn_conf: return timer_config(n);
    case tn_comp: return state_.timers[n].comparator;
    case tn_fsb: return state_.timers[n].fsb_route;
    default: return 0;
    }
}

std::uint64_t Hpet::read(std::uint64_t offset, unsigned size) {
    settle_all();
    std::uint64_t value = read_register(offset & ~7ull) >> (8 * (offset & 7));
    return size == 8 ? value : value & ((1ull << (8 * size)) - 1);
}

void Hpet::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (size < 4) return; // section 2.3.2: accesses are 32 or 64 bits wide
    settle_all();
    std::uint64_t shift = 8 * (offset & 7), mask = size == 8 ? ~0ull : 0xffffffffull << shift;
    write_register(offset & ~7ull, value << shift, mask);
    for (unsigned n = 0; n < timer_count; ++n) arm(n);
}

void Hpet::write_register(std::uint64_t offset, std::uint64_t value, std::uint64_t mask) {
    switch (offset) {
    case gen_conf: return write_general_config((state_.config & ~mask) | (value & mask));
    case gintr_sta:
        for (unsigned n = 0; n < timer_count; ++n) {
            if (!(state_.status & value & mask & (1u << n))) continue;
            if (IrqLine* line = line_of(n)) line->set(false);
            state_.status &= ~(1u << n);
        }
        return;
    case main_cnt:
        state_.counter = (counter() & ~mask) | (value & mask);
        state_.counter_start = needs_.timers.now();
        for (TimerState& t : state_.timers) t.seen = state_.counter;
        return;
    default: break;
    }
    if (offset < timers_base || offset >= timers_base + timer_count * timer_stride) return;
    write_timer(unsigned((offset - timers_base) / timer_stride), offset % timer_stride, value, mask);
}

void Hpet::write_general_config(std::uint64_t value) {
    bool const was_legacy = legacy();
    drive(false);
    state_.counter = counter();
    state_.counter_start = needs_.timers.now();
    state_.config = value & (enable_cnf | leg_rt_cnf);
    if (was_legacy != legacy()) {
        if (needs_.on_legacy) needs_.on_legacy(legacy());
        needs_.irq0.set(!legacy() && state_.pit_level);
        needs_.irq8.set(!legacy() && state_.rtc_level);
    }
    drive(true);
}

void Hpet::write_timer(unsigned n, std::uint64_t reg, std::uint64_t value, std::uint64_t mask) {
    TimerState& t = state_.timers[n];
    switch (reg) {
    case tn_conf:
        drive(false); // the routing may change under an asserted level
        write_timer_config(t, (t.config & ~mask) | (value & mask));
        if (!(t.config & int_type_level)) state_.status &= ~(1u << n);
        drive(true);
        break;
    case tn_comp: write_comparator(t, value, mask); break;
    case tn_fsb: t.fsb_route = (t.fsb_route & ~mask) | (value & mask); break;
    default: break;
    }
}

void Hpet::write_timer_config(TimerState& t, std::uint64_t value) {
    auto config = std::uint32_t(value) & timer_writable;
    if (!needs_.msi) config &= ~fsb_enable;
    if (!(config_.route_capability >> route(config) & 1)) // an input it cannot use does not read back
        config = (config & ~route_mask) | (t.config & route_mask);
    t.config = config;
    t.comparator &= width_mask(t);
    t.period &= width_mask(t);
}

// In periodic mode a write sets the period; with VAL_SET it sets the accumulator too (section 2.3.9.2.2).
void Hpet::write_comparator(TimerState& t, std::uint64_t value, std::uint64_t mask) {
    mask &= width_mask(t);
    if (periodic(t)) t.period = (t.period & ~mask) | (value & mask);
    if (!periodic(t) || (t.config & val_set)) t.comparator = (t.comparator & ~mask) | (value & mask);
    t.config &= ~val_set;
    t.seen = counter();
}

} // namespace vmm::dev
