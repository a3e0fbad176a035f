// Interrupts: SIGINT, SIGTERM, SIGHUP and SIGUSR1 as events of the loop, so that a long command can tidy up.
#pragma once
#include "vmm/base/event_loop.h"

#include <csignal>
#include <functional>

namespace vmm::block {

// While one lives, the signals do not end the process. Made on the main thread before worker threads start (they take
// over its signal mask).
class Interrupts {
public:
    // `on_usr1` runs on the loop's thread.
    Interrupts(EventLoop& loop, std::function<void()> on_usr1);
    ~Interrupts();
    Interrupts(Interrupts const&) = delete;
    Interrupts& operator=(Interrupts const&) = delete;

    // The signal that asked us to stop, or 0.
    int pending() const { return pending_; }
    // "Interrupted" once pending().
    Result<void> check() const;
    // Ends the process as the signal would have, if there was one.
    void die_if_pending();

private:
    EventLoop& loop_;
    sigset_t previous_{};
    UniqueFd fd_;
    int pending_ = 0;
};

} // namespace vmm::block
