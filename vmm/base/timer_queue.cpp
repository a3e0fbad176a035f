#include "vmm/base/timer_queue.h"

#include <ctime>

namespace vmm {

Timer::Timer(TimerQueue& queue, std::function<void()> callback) : queue_(queue), callback_(std::move(callback)) {}

Timer::~Timer() { cancel(); }

void Timer::arm(Nanoseconds deadline) {
    cancel();
    deadline_ = deadline < 0 ? 0 : deadline;
    bool earlier = deadline_ < queue_.next_deadline();
    queue_.timers_.emplace(deadline_, this);
    if (earlier && queue_.on_earlier_) queue_.on_earlier_();
}

void Timer::cancel() {
    if (deadline_ < 0) return;
    queue_.timers_.erase({deadline_, this});
    deadline_ = -1;
}

Nanoseconds TimerQueue::next_deadline() const { return timers_.empty() ? never : timers_.begin()->first; }

void TimerQueue::run_expired() {
    while (!timers_.empty() && timers_.begin()->first <= now()) {
        Timer* timer = timers_.begin()->second;
        timers_.erase(timers_.begin());
        timer->deadline_ = -1;
        timer->callback_();
    }
}

static Nanoseconds read_clock(clockid_t id) {
    timespec t;
    clock_gettime(id, &t);
    return Nanoseconds(t.tv_sec) * nanoseconds_per_second + t.tv_nsec;
}

Nanoseconds host_monotonic() { return read_clock(CLOCK_MONOTONIC); }
Nanoseconds host_realtime() { return read_clock(CLOCK_REALTIME); }

VirtualClock::VirtualClock() : offset_(-host_monotonic()) {}

Nanoseconds VirtualClock::now() const { return running() ? host_monotonic() + offset_.load() : stopped_.load(); }

void VirtualClock::stop() {
    if (!running()) return;
    stopped_ = now();
    running_ = false;
}

void VirtualClock::start() {
    if (running()) return;
    offset_ = stopped_.load() - host_monotonic();
    running_ = true;
}

void VirtualClock::set(Nanoseconds value) {
    stopped_ = value;
    offset_ = value - host_monotonic();
}

} // namespace vmm
