// The APIC timer: one-shot, periodic, TSC-deadline (SDM section 10.5.4). The bus clock is 1 GHz: one count at
// divide-by-1 is a nanosecond.
#include "devices/irq/local_apic.h"
#include "devices/irq/local_apic_bits.h"

#include <algorithm>

namespace vmm::dev {
using namespace apic;

namespace {
// A periodic timer goes off at most this often, whatever its period: a guest must not keep the host busy with timers
// that it could not serve anyway.
constexpr Nanoseconds min_periodic_interval = 20'000;
} // namespace

bool LocalApic::timer_is(std::uint32_t mode) const { return (state_.lvt[timer] >> 17 & 3) == mode; }

std::uint64_t LocalApic::timer_tick_ns() const {
    unsigned code = (state_.timer_divide & 3) | (state_.timer_divide >> 1 & 4); // bits 3, 1, 0
    return 1ull << ((code + 1) & 7);
}

std::uint32_t LocalApic::timer_current() const {
    if (state_.timer_initial == 0 || state_.timer_stopped || timer_is(timer_tsc_deadline)) return 0;
    std::uint64_t elapsed = std::uint64_t(std::max<Nanoseconds>(needs_.timers.now() - state_.timer_start, 0));
    elapsed /= timer_tick_ns();
    if (timer_is(timer_periodic)) return state_.timer_initial - std::uint32_t(elapsed % state_.timer_initial);
    return elapsed >= state_.timer_initial ? 0 : state_.timer_initial - std::uint32_t(elapsed);
}

void LocalApic::run_timer_up_to_now() {
    if (!timer_.armed() || timer_.deadline() > needs_.timers.now()) return;
    timer_.cancel();
    timer_fired();
}

// The LVT entry gets a mode other than it has. Between one-shot and periodic the count goes on: from where it stands in
// the period under way, and not at all when a one-shot is over (a write of the initial count starts it).
void LocalApic::timer_mode_changes(std::uint32_t lvt) {
    bool to_deadline = (lvt >> 17 & 3) == timer_tsc_deadline;
    if (to_deadline != timer_is(timer_tsc_deadline)) { // SDM 10.5.4.1: disarms
        state_.timer_initial = 0;
        state_.tsc_deadline = 0;
    }
    if (state_.timer_initial == 0) return;
    state_.timer_stopped = timer_current() == 0;
    auto period = Nanoseconds(state_.timer_initial * timer_tick_ns());
    Nanoseconds elapsed = std::max<Nanoseconds>(needs_.timers.now() - state_.timer_start, 0);
    if (!state_.timer_stopped) state_.timer_start += elapsed / period * period;
}

void LocalApic::set_timer_deadline(Nanoseconds deadline) {
    state_.timer_deadline = deadline;
    if (deadline < 0)
        timer_.cancel();
    else
        timer_.arm(deadline);
}

void LocalApic::arm_timer() {
    Nanoseconds now = needs_.timers.now();
    if (timer_is(timer_tsc_deadline)) {
        Nanoseconds at = state_.tsc_deadline ? needs_.tsc.when(state_.tsc_deadline) : TimerQueue::never;
        return set_timer_deadline(at > INT64_MAX / 2 ? -1 : std::max<Nanoseconds>(at, 0));
    }
    if (state_.timer_initial == 0 || state_.timer_stopped || (state_.lvt[timer] & lvt_masked))
        return set_timer_deadline(-1);
    auto period = Nanoseconds(state_.timer_initial * timer_tick_ns());
    Nanoseconds elapsed = std::max<Nanoseconds>(now - state_.timer_start, 0);
    if (timer_is(timer_periodic)) {
        if (period < min_periodic_interval) elapsed += min_periodic_interval;
        return set_timer_deadline(state_.timer_start + (elapsed / period + 1) * period);
    }
    set_timer_deadline(elapsed < period ? state_.timer_start + period : -1);
}

void LocalApic::timer_fired() {
    state_.timer_deadline = -1;
    state_.tsc_deadline = 0;
    deliver_local(timer);
    if (timer_is(timer_periodic)) arm_timer();
}

void LocalApic::write_timer_initial(std::uint32_t value) {
    if (timer_is(timer_tsc_deadline)) return;
    run_timer_up_to_now();
    state_.timer_initial = value;
    state_.timer_start = needs_.timers.now();
    state_.timer_stopped = false;
    arm_timer();
}

// The count goes on from where it is, at the new rate.
void LocalApic::write_timer_divide(std::uint32_t value) {
    run_timer_up_to_now();
    std::uint64_t counted = state_.timer_initial - timer_current();
    state_.timer_divide = value & 0xb;
    state_.timer_start = needs_.timers.now() - Nanoseconds(counted * timer_tick_ns());
    arm_timer();
}

void LocalApic::write_tsc_deadline(std::uint64_t value) {
    if (!timer_is(timer_tsc_deadline)) return;
    run_timer_up_to_now();
    state_.tsc_deadline = value;
    arm_timer();
    if (value && value <= needs_.tsc.tsc_now()) {
        set_timer_deadline(-1);
        timer_fired();
    }
}

} // namespace vmm::dev
