// FdPump: moves bytes between a pair of descriptors and a front end, with flow control both ways. What every backend
// with a descriptor is built on.
#pragma once
#include "vmm/base/event_loop.h"
#include "vmm/base/thread_annotations.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace vmm::ui {

// How a descriptor is kept from blocking us. O_NONBLOCK belongs to an open file description, which standard input and
// output share with the shell, so it is only set on descriptions of our own.
enum class NoBlock : std::uint8_t {
    own_flag, // O_NONBLOCK is set on it
    per_call, // a socket: MSG_DONTWAIT
    poll,     // asked before each call, then a little at a time
    never,    // a regular file: does not block
};

struct PumpEnd {
    UniqueFd fd;
    NoBlock how = NoBlock::own_flag;
};

// A descriptor of our own for standard input or output: the same file opened anew and non-blocking where the system
// lets us (terminals, pipes), else a duplicate that is polled.
PumpEnd reopen_standard(int fd, bool for_writing);

// All on the loop's thread except where said. Destroy on the loop's thread.
class FdPump {
public:
    static constexpr std::size_t queue_limit = 64 * 1024; // bytes accepted and not yet written
    static constexpr std::size_t read_chunk = 4096;

    struct Events {
        // Offers input; returns how many bytes were taken. The rest is offered again after resume_input().
        std::function<std::size_t(std::span<std::uint8_t const>)> input;
        std::function<void()> room;         // write() will take more, after it was short
        std::function<void()> end_of_input; // read end at its end or broken; no more input comes
        std::function<void()> broken;       // write end broken; what is written now is swallowed
        // Whether reading must wait (a terminal while we are in the background); null: never.
        std::function<bool()> hold_input;
    };
    FdPump(EventLoop& loop, Events events);
    ~FdPump();
    FdPump(FdPump const&) = delete;
    FdPump& operator=(FdPump const&) = delete;

    // Starts on these descriptors; either may be empty. Drops what was queued.
    void attach(PumpEnd in, PumpEnd out);
    void detach();

    // Any thread: takes what fits, never blocks. Without a write end everything is swallowed.
    std::size_t write(std::span<std::uint8_t const> bytes);
    // Any thread: takes all of `bytes` (a few) or, when there is no room, none.
    bool write_whole(std::span<std::uint8_t const> bytes);
    // Any thread: offer what is held back, and read on.
    void resume_input();
    // Writes out the queue, waiting at most `timeout`.
    void drain(Nanoseconds timeout);

private:
    void on_readable();
    bool offer();
    void watch_input(bool on);
    void on_write_ready();
    // Writes to out_ as much as goes now; < 0: the end is broken.
    std::ptrdiff_t write_now(std::uint8_t const* data, std::size_t size) VMM_REQUIRES(mutex_);
    bool flush_queue() VMM_REQUIRES(mutex_);
    void post(void (FdPump::*what)());
    void handle_broken();

    EventLoop& loop_;
    Events events_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true); // posted work looks here first; loop thread only

    PumpEnd in_;
    std::vector<std::uint8_t> held_; // read, not yet taken by the front end
    bool watching_input_ = false;
    bool at_end_ = false;

    Mutex mutex_; // after the device lock
    PumpEnd out_ VMM_GUARDED_BY(mutex_);
    std::vector<std::uint8_t> queue_ VMM_GUARDED_BY(mutex_);
    bool starved_ VMM_GUARDED_BY(mutex_) = false;
    bool broken_ VMM_GUARDED_BY(mutex_) = false;
};

} // namespace vmm::ui
