// Waiting for a time inside a task, and keeping to a rate.
#pragma once
#include "block/core/task.h"
#include "vmm/base/clock.h"
#include "vmm/base/event_loop.h"

namespace vmm::block {

// Suspends for `duration` (real time).
Task<void> pause_for(EventLoop& loop, Nanoseconds duration);

// Keeps the sum of take() below a number of bytes a second (`-r`).
class RateLimit {
public:
    // 0: no limit.
    RateLimit(EventLoop& loop, std::uint64_t bytes_per_second) : loop_(loop), rate_(bytes_per_second) {}
    // Waits until `bytes` more may be moved.
    Task<void> take(std::uint64_t bytes);

private:
    EventLoop& loop_;
    std::uint64_t rate_;
    Nanoseconds free_at_ = 0;
};

} // namespace vmm::block
