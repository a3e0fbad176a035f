// Virtual time: the clock that stops with the machine, and the queue of timers that fire by it.
#pragma once
#include "vmm/base/clock.h"

#include <atomic>
#include <functional>
#include <set>
#include <utility>

namespace vmm {

class TimerQueue;

// A one-shot timer owned by a device. Its callback runs under the device lock, on the thread that runs the queue, at or
// after the deadline. All members need the device lock (the lock of the TimerQueue's owner).
class Timer {
public:
    Timer(TimerQueue& queue, std::function<void()> callback);
    ~Timer();
    Timer(Timer const&) = delete;
    Timer& operator=(Timer const&) = delete;

    // Arms (or re-arms) the timer for the absolute virtual time `deadline`; a past one fires at the next run.
    void arm(Nanoseconds deadline);
    void cancel();
    bool armed() const { return deadline_ >= 0; }
    // The deadline while armed, or -1.
    Nanoseconds deadline() const { return deadline_; }

private:
    friend class TimerQueue;
    TimerQueue& queue_;
    std::function<void()> callback_;
    Nanoseconds deadline_ = -1;
};

// Timers in order of deadline. Not thread-safe: guarded by its owner's lock (the machine's device lock).
class TimerQueue {
public:
    static constexpr Nanoseconds never = INT64_MAX;
    // `clock` must outlive the queue.
    explicit TimerQueue(Clock& clock) : clock_(clock) {}

    Clock& clock() const { return clock_; }
    Nanoseconds now() const { return clock_.now(); }
    // The earliest deadline, or `never`.
    Nanoseconds next_deadline() const;
    // Fires every timer whose deadline is at or before now(). Timers armed for the past by a callback fire too.
    void run_expired();
    // Called whenever next_deadline() becomes earlier, so that the owner can shorten its wait.
    void set_on_earlier(std::function<void()> callback) { on_earlier_ = std::move(callback); }

private:
    friend class Timer;
    Clock& clock_;
    std::set<std::pair<Nanoseconds, Timer*>> timers_;
    std::function<void()> on_earlier_;
};

// The machine's virtual clock: host CLOCK_MONOTONIC less the time spent stopped. now() from any thread; stop, start and
// set from one thread at a time.
class VirtualClock final : public Clock {
public:
    VirtualClock();
    Nanoseconds now() const override;
    bool running() const { return running_.load(std::memory_order_acquire); }
    void stop();
    void start();
    // Jumps to `value` (loading a snapshot); keeps running or stopped.
    void set(Nanoseconds value);

private:
    std::atomic<bool> running_{true};
    std::atomic<Nanoseconds> offset_{0};  // virtual = host + offset while running
    std::atomic<Nanoseconds> stopped_{0}; // virtual time while stopped
};

// Host CLOCK_MONOTONIC in nanoseconds.
Nanoseconds host_monotonic();
// Host CLOCK_REALTIME in nanoseconds since the epoch.
Nanoseconds host_realtime();

} // namespace vmm
