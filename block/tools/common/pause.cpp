#include "block/tools/common/pause.h"

#include <sys/timerfd.h>

#include <algorithm>
#include <chrono>
#include <coroutine>

namespace vmm::block {

namespace {

struct TimerAwaiter {
    EventLoop& loop;
    int fd;
    bool await_ready() const noexcept { return fd < 0; }
    void await_suspend(std::coroutine_handle<> waiting) {
        EventLoop& l = loop;
        int watched = fd;
        // Unwatching destroys the callback that runs, so the resumption happens from a post.
        loop.watch(fd, Ready::read, [&l, watched, waiting](Ready) {
            auto target = waiting;
            EventLoop& again = l;
            again.post([target] { target.resume(); });
            again.unwatch(watched);
        });
    }
    void await_resume() const noexcept {}
};

} // namespace

Task<void> pause_for(EventLoop& loop, Nanoseconds duration) {
    if (duration <= 0) co_return;
    UniqueFd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    itimerspec when{};
    when.it_value.tv_sec = duration / nanoseconds_per_second;
    when.it_value.tv_nsec = duration % nanoseconds_per_second;
    if (timer) timerfd_settime(timer.get(), 0, &when, nullptr);
    TimerAwaiter awaiter{loop, timer.get()};
    co_await awaiter;
}

Task<void> RateLimit::take(std::uint64_t bytes) {
    if (rate_ == 0) co_return;
    Nanoseconds now =
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
            .count();
    Nanoseconds wait = std::max<Nanoseconds>(0, free_at_ - now);
    free_at_ = std::max(now, free_at_) + Nanoseconds(double(bytes) * 1e9 / double(rate_));
    co_await pause_for(loop_, wait);
}

} // namespace vmm::block
