#include "vmm/machine/pc/kernel_pit.h"

#include "vmm/machine/pc/kernel_chips.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace vmm {

namespace {
using Counter = dev::I8254::Counter;

constexpr std::uint8_t no_mode = 0xff, software_strobe = 4;
constexpr std::uint32_t longest_count = 65536;
// A count that is over is loaded again this often: well before the longest one ends (55 ms).
constexpr Nanoseconds renewal = 25'000'000;
// The kernel's interrupt may come this long after the count that causes it has ended.
constexpr Nanoseconds slack = 300'000;

bool is_periodic(std::uint8_t mode) { return mode == 2 || mode == 3; }
bool is_one_shot(std::uint8_t mode) { return mode == 0 || mode == 1 || mode == 4; }

// Host and virtual time of one moment.
struct Moment {
    Nanoseconds host, guest;
    explicit Moment(Clock const& clock) {
        for (unsigned tries = 0; tries < 10; ++tries) {
            host = host_monotonic(), guest = clock.now();
            if (host_monotonic() - host < 1000) break;
        }
    }
};

void wait_until(Nanoseconds host) {
    timespec at{.tv_sec = host / nanoseconds_per_second, .tv_nsec = host % nanoseconds_per_second};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
    }
}
} // namespace

void KernelPit::set_board(dev::I8254& pit, TimerQueue& timers) {
    pit_ = &pit, timers_ = &timers;
    timer_.emplace(timers, [this] { refresh(); });
}

void KernelPit::forget() {
    known_ = false, stopgap_ = Stopgap::none;
    if (timer_) timer_->cancel();
}

Result<kvm_pit_state2> KernelPit::get() const {
    kvm_pit_state2 pit{};
    if (int result = machine_.api().ioctl(machine_.vm_fd(), KVM_GET_PIT2, &pit); result < 0)
        return kvm::kvm_error("KVM_GET_PIT2", result);
    return pit;
}

Result<void> KernelPit::set(kvm_pit_state2& pit) {
    if (int result = machine_.api().ioctl(machine_.vm_fd(), KVM_SET_PIT2, &pit); result < 0)
        return kvm::kvm_error("KVM_SET_PIT2", result);
    return {};
}

// Whether the guest has not loaded counter 0 since we did.
bool KernelPit::untouched(kvm_pit_channel_state const& channel) const {
    return known_ && channel.mode == loaded_.mode && channel.count_load_time == loaded_.count_load_time;
}

// KVM_SET_PIT2, which begins counter 0's count, and what the kernel made of it.
Result<void> KernelPit::load(kvm_pit_state2 pit) {
    TRY(set(pit));
    loaded_ = TRY(get()).channels[0];
    return {};
}

Result<void> KernelPit::push(bool replaced) {
    forget();
    board_ = pit_->state();
    Moment now(timers_->clock());
    kvm_pit_state2 pit = to_kvm(board_, now.guest, now.host);
    pit.flags = replaced ? KVM_PIT_FLAGS_HPET_LEGACY : 0;
    kvm_pit_channel_state& channel = pit.channels[0];
    Counter const& counter = board_.counters[0];
    if (channel.mode == no_mode || !counter.loaded || replaced) {
        TRY(load(pit));
        known_ = counter.loaded && channel.mode != no_mode;
        return {};
    }
    if (board_.next_interrupt < 0) {
        stopgap_ = Stopgap::over;
        channel.count = longest_count;
        timer_->arm(now.guest + renewal);
    } else {
        std::int64_t left = dev::I8254::clock.ticks_at(board_.next_interrupt - now.guest);
        channel.count = std::uint32_t(std::clamp<std::int64_t>(left, 1, 2 * longest_count));
        if (is_periodic(channel.mode)) {
            stopgap_ = Stopgap::rest_of_period;
            channel.mode = software_strobe;
            timer_->arm(std::max(board_.next_interrupt, now.guest));
        }
    }
    TRY(load(pit));
    known_ = true;
    return {};
}

// On the loop's thread when the stopgap has served its time.
void KernelPit::refresh() {
    auto done = machine_.outside_guest([this] { return end_stopgap(); });
    if (!done) log_.warn("{}", done.error().message());
}

Result<void> KernelPit::end_stopgap() {
    kvm_pit_state2 pit = TRY(get());
    kvm_pit_channel_state& channel = pit.channels[0];
    Stopgap what = std::exchange(stopgap_, Stopgap::none);
    bool same = untouched(channel);
    if (what == Stopgap::over) {
        if (!same) return known_ = false, Result<void>();
        stopgap_ = Stopgap::over;
        timer_->arm(timers_->now() + renewal);
        return load(pit);
    }
    known_ = false;
    if (what == Stopgap::none || channel.mode != software_strobe) return {};
    Counter const& counter = board_.counters[0];
    channel.mode = counter.control >> 1 & 3; // M2 is ignored in modes 2 and 3
    if (same) channel.count = counter.reload_pending ? counter.count_register : counter.period;
    return set(pit);
}

Result<void> KernelPit::set_replaced(bool on) {
    if (stopgap_ == Stopgap::rest_of_period) TRY(machine_.outside_guest([this] { return end_stopgap(); }));
    forget();
    kvm_pit_state2 pit = TRY(get());
    pit.flags = on ? pit.flags | KVM_PIT_FLAGS_HPET_LEGACY : pit.flags & ~KVM_PIT_FLAGS_HPET_LEGACY;
    return set(pit);
}

Result<void> KernelPit::pull() {
    kvm_pit_state2 pit = TRY(get()), stopped = pit;
    kvm_pit_channel_state& channel = pit.channels[0];
    bool one_shot = is_one_shot(channel.mode) && stopgap_ != Stopgap::over;
    // Whether it has interrupted follows from the time, so the interrupt must not be under way.
    Nanoseconds end = Nanoseconds(channel.count_load_time) + dev::I8254::clock.time_of(channel.count);
    if (one_shot && std::abs(end - host_monotonic()) < slack) wait_until(end + slack);
    one_shot &= end > host_monotonic();
    stopped.channels[0].mode = no_mode;
    TRY(set(stopped));
    bool same = untouched(channel);
    if (stopgap_ == Stopgap::rest_of_period && channel.mode == software_strobe)
        channel.mode = board_.counters[0].control >> 1 & 3;
    Moment now(timers_->clock());
    dev::I8254::State state = from_kvm(pit, now.guest, now.host);
    if (same) {
        Counter const& latches = state.counters[0];
        Counter counter = board_.counters[0];
        counter.read_high_next = latches.read_high_next, counter.write_high_next = latches.write_high_next;
        counter.write_low = latches.write_low;
        counter.count_latched = latches.count_latched, counter.latched_count = latches.latched_count;
        counter.status_latched = latches.status_latched, counter.latched_status = latches.latched_status;
        state.counters[0] = counter;
    }
    if (one_shot) state.next_interrupt = std::max<Nanoseconds>(now.guest + (end - now.host), 0);
    forget();
    return pit_->adopt(state);
}

} // namespace vmm
