// EventLoop: the main thread's epoll loop: file descriptors, deadlines and work posted by other threads.
#pragma once
#include "vmm/base/clock.h"
#include "vmm/base/result.h"
#include "vmm/base/thread_annotations.h"
#include "vmm/base/unique_fd.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace vmm {

// Which readiness a watch waits for; a bit set.
enum class Ready : std::uint8_t { none = 0, read = 1, write = 2, read_write = 3 };

// Runs on one thread (the one that calls run); every callback runs there. post() and stop() are for any thread.
class EventLoop {
public:
    static Result<std::unique_ptr<EventLoop>> create();
    ~EventLoop();
    EventLoop(EventLoop const&) = delete;
    EventLoop& operator=(EventLoop const&) = delete;

    // Calls `callback` with what is ready (hang-up and error count as both) until unwatch(fd). Re-watching an fd
    // replaces its entry. Regular files and other descriptors epoll refuses (EPERM) are always ready. `fd` stays the
    // caller's.
    void watch(int fd, Ready for_what, std::function<void(Ready)> callback);
    void unwatch(int fd);

    // A source of deadlines: asked before each wait for its next one (host_monotonic() time, INT64_MAX: none), run when
    // it has passed. The machine's TimerQueue is one.
    struct DeadlineSource {
        std::function<Nanoseconds()> next;
        std::function<void()> run;
    };
    void set_deadline_source(DeadlineSource source);

    // Runs `work` on the loop's thread soon, in order of posting.
    void post(std::function<void()> work);
    // Makes the loop look at its deadlines again. Any thread.
    void wake();

    // Handles events until stop().
    void run();
    // Handles what is ready, waiting at most `timeout` (ns; < 0: until something happens) once.
    void run_once(Nanoseconds timeout);
    void stop();

private:
    EventLoop(UniqueFd epoll, UniqueFd wake);
    struct Watch {
        Ready for_what;
        std::function<void(Ready)> callback;
        bool always_ready;
        std::uint64_t generation;
    };
    void run_posted();

    UniqueFd epoll_;
    UniqueFd wake_;
    std::map<int, Watch> watches_;
    std::uint64_t generation_ = 0;
    DeadlineSource deadlines_;
    Mutex mutex_;
    std::vector<std::function<void()>> posted_ VMM_GUARDED_BY(mutex_);
    bool stopping_ VMM_GUARDED_BY(mutex_) = false;
};

} // namespace vmm
