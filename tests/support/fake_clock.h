// FakeClock: a Clock that moves only when a test says so.
#pragma once
#include "vmm/base/clock.h"
#include "vmm/base/timer_queue.h"

namespace vmm::test {

class FakeClock final : public Clock {
public:
    Nanoseconds now() const override { return now_; }
    void set(Nanoseconds value) { now_ = value; }
    // Moves time to each deadline in turn up to now + `by`, firing timers as a running machine would.
    void advance(TimerQueue& timers, Nanoseconds by) {
        Nanoseconds end = now_ + by;
        while (timers.next_deadline() <= end) {
            if (timers.next_deadline() > now_) now_ = timers.next_deadline();
            timers.run_expired();
        }
        now_ = end;
    }

private:
    Nanoseconds now_ = 0;
};

} // namespace vmm::test
