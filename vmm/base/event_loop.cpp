#include "vmm/base/event_loop.h"

#include "vmm/base/timer_queue.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace vmm {

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
    UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll) return error_from_errno(errno, "Could not create an epoll instance");
    UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake) return error_from_errno(errno, "Could not create an eventfd");
    epoll_event event{.events = EPOLLIN, .data = {.fd = wake.get()}};
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) < 0)
        return error_from_errno(errno, "Could not watch an eventfd");
    return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
EventLoop::~EventLoop() = default;

void EventLoop::watch(int fd, Ready for_what, std::function<void(Ready)> callback) {
    unwatch(fd);
    epoll_event event{.events = 0, .data = {.fd = fd}};
    if (std::uint8_t(for_what) & std::uint8_t(Ready::read)) event.events |= EPOLLIN;
    if (std::uint8_t(for_what) & std::uint8_t(Ready::write)) event.events |= EPOLLOUT;
    bool refused = epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0;
    VMM_ASSERT(!refused || errno == EPERM);
    watches_[fd] = Watch{for_what, std::move(callback), refused, ++generation_};
}

void EventLoop::unwatch(int fd) {
    auto it = watches_.find(fd);
    if (it == watches_.end()) return;
    if (!it->second.always_ready) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    watches_.erase(it);
}

void EventLoop::set_deadline_source(DeadlineSource source) { deadlines_ = std::move(source); }

void EventLoop::post(std::function<void()> work) {
    {
        MutexLock lock(mutex_);
        posted_.push_back(std::move(work));
    }
    wake();
}

void EventLoop::wake() {
    std::uint64_t one = 1;
    [[maybe_unused]] ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::stop() {
    {
        MutexLock lock(mutex_);
        stopping_ = true;
    }
    wake();
}

void EventLoop::run() {
    for (;;) {
        {
            MutexLock lock(mutex_);
            if (stopping_) {
                stopping_ = false;
                return;
            }
        }
        run_once(-1);
    }
}

void EventLoop::run_posted() {
    std::vector<std::function<void()>> work;
    {
        MutexLock lock(mutex_);
        work.swap(posted_);
    }
    for (auto& item : work) item();
}

void EventLoop::run_once(Nanoseconds timeout) {
    if (deadlines_.next) {
        Nanoseconds deadline = deadlines_.next();
        if (deadline != INT64_MAX) {
            Nanoseconds left = std::max<Nanoseconds>(0, deadline - host_monotonic());
            timeout = timeout < 0 ? left : std::min(timeout, left);
        }
    }
    bool any_always = std::ranges::any_of(watches_, [](auto const& w) { return w.second.always_ready; });
    if (any_always) timeout = 0;

    std::array<epoll_event, 64> events;
    timespec wait{timeout / nanoseconds_per_second, timeout % nanoseconds_per_second};
    int count = epoll_pwait2(epoll_.get(), events.data(), int(events.size()), timeout < 0 ? nullptr : &wait, nullptr);
    if (count < 0 && errno == ENOSYS) // kernels before 5.11: milliseconds, rounded up so that a deadline has passed
        count = epoll_wait(epoll_.get(), events.data(), int(events.size()),
                           timeout < 0 ? -1 : int(std::min<Nanoseconds>((timeout + 999'999) / 1'000'000, INT32_MAX)));

    // A callback may unwatch or replace any entry, so each is looked up again, by fd and generation, before its call.
    struct Due {
        int fd;
        std::uint64_t generation;
        Ready ready;
    };
    std::vector<Due> due;
    for (int i = 0; i < count; ++i) {
        int fd = events[i].data.fd;
        if (fd == wake_.get()) {
            std::uint64_t ignored;
            [[maybe_unused]] ssize_t n = ::read(fd, &ignored, sizeof ignored);
            continue;
        }
        auto it = watches_.find(fd);
        if (it == watches_.end()) continue;
        std::uint8_t bits = 0;
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) bits |= std::uint8_t(Ready::read);
        if (events[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) bits |= std::uint8_t(Ready::write);
        bits &= std::uint8_t(it->second.for_what);
        if (bits == 0 && (events[i].events & (EPOLLHUP | EPOLLERR))) bits = std::uint8_t(it->second.for_what);
        due.push_back({fd, it->second.generation, Ready(bits)});
    }
    if (any_always)
        for (auto const& [fd, w] : watches_)
            if (w.always_ready && w.for_what != Ready::none) due.push_back({fd, w.generation, w.for_what});
    for (Due const& item : due) {
        auto it = watches_.find(item.fd);
        if (it == watches_.end() || it->second.generation != item.generation) continue;
        auto callback = it->second.callback; // kept alive if the callback unwatches itself
        callback(item.ready);
    }
    if (deadlines_.next && deadlines_.next() <= host_monotonic()) deadlines_.run();
    run_posted();
}

} // namespace vmm
