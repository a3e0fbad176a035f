// What tasks wait for each other with: mutex, condition, groups of tasks in flight. Loop thread only.
#pragma once
#include "block/core/task.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace vmm::block {

class AsyncMutex;

// Holds an AsyncMutex until destroyed or unlock().
class [[nodiscard]] AsyncLock {
public:
    AsyncLock() = default;
    explicit AsyncLock(AsyncMutex* mutex) : mutex_(mutex) {}
    AsyncLock(AsyncLock&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    AsyncLock& operator=(AsyncLock&& other) noexcept {
        unlock();
        mutex_ = std::exchange(other.mutex_, nullptr);
        return *this;
    }
    ~AsyncLock() { unlock(); }
    void unlock();
    explicit operator bool() const { return mutex_ != nullptr; }

private:
    AsyncMutex* mutex_ = nullptr;
};

// First come, first served. `AsyncLock lock = co_await mutex.lock();`. Not recursive. Uncontended: no allocation, no
// suspension. unlock() runs the next owner at once, before it returns, but never deeper than one level: a chain of
// waiters is resumed in a loop. Whoever waits must be resumed before the mutex dies.
class AsyncMutex {
public:
    AsyncMutex() = default;
    ~AsyncMutex();
    AsyncMutex(AsyncMutex const&) = delete;
    AsyncMutex& operator=(AsyncMutex const&) = delete;

    struct Awaiter {
        AsyncMutex& mutex;
        bool await_ready() const noexcept;
        void await_suspend(std::coroutine_handle<> waiting);
        AsyncLock await_resume() const noexcept { return AsyncLock(&mutex); }
    };
    Awaiter lock() { return Awaiter{*this}; }
    bool locked() const { return locked_; }

private:
    friend class AsyncLock;
    void unlock();
    std::deque<std::coroutine_handle<>> waiting_;
    bool locked_ = false;
    bool handing_over_ = false;
    bool* destroyed_ = nullptr; // set while handing over: a resumed task may destroy us
};

// `while (!ready) co_await condition.wait();`. Spurious wake-ups are possible.
class AsyncCondition {
public:
    AsyncCondition() = default;
    ~AsyncCondition() { VMM_ASSERT(waiting_.empty()); }
    AsyncCondition(AsyncCondition const&) = delete;
    AsyncCondition& operator=(AsyncCondition const&) = delete;

    struct Awaiter {
        AsyncCondition& condition;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiting) { condition.waiting_.push_back(waiting); }
        void await_resume() const noexcept {}
    };
    Awaiter wait() { return Awaiter{*this}; }
    // Resumes everyone that waits now, in order, before it returns. The condition may be destroyed by one of them.
    void notify_all();
    bool has_waiters() const { return !waiting_.empty(); }

private:
    std::vector<std::coroutine_handle<>> waiting_;
};

// Several tasks at once, at most `limit` in flight: `co_await group.start(task)` waits for a free slot; `co_await
// group.finish()` waits for all and gives the first error. After an error start() does not run further tasks and says
// false. finish() must have been awaited before the group is destroyed.
class TaskGroup {
public:
    explicit TaskGroup(std::size_t limit) : limit_(limit) {}
    ~TaskGroup() { VMM_ASSERT(in_flight_ == 0); }
    TaskGroup(TaskGroup const&) = delete;
    TaskGroup& operator=(TaskGroup const&) = delete;

    Task<bool> start(Task<Result<void>> task);
    Task<Result<void>> finish();
    bool failed() const { return error_.has_value(); }
    std::size_t in_flight() const { return in_flight_; }

private:
    detail::Detached run(Task<Result<void>> task);
    std::size_t limit_;
    std::size_t in_flight_ = 0;
    std::optional<Error> error_;
    AsyncCondition changed_;
};

// Runs all at once; the first error, after all have finished.
Task<Result<void>> when_all(std::vector<Task<Result<void>>> tasks);

// Byte ranges in use: overlapping exclusive ranges wait for each other, in order of arrival. For read-modify-write and
// for cluster allocation.
class RangeLocks {
public:
    class [[nodiscard]] Hold {
    public:
        Hold() = default;
        Hold(RangeLocks* locks, std::uint64_t id) : locks_(locks), id_(id) {}
        Hold(Hold&& other) noexcept : locks_(std::exchange(other.locks_, nullptr)), id_(other.id_) {}
        Hold& operator=(Hold&& other) noexcept {
            release();
            locks_ = std::exchange(other.locks_, nullptr);
            id_ = other.id_;
            return *this;
        }
        ~Hold() { release(); }
        void release();

    private:
        RangeLocks* locks_ = nullptr;
        std::uint64_t id_ = 0;
    };
    // Waits until no earlier overlapping range is held or waiting. length > 0; offset + length does not wrap.
    Task<Hold> lock(std::uint64_t offset, std::uint64_t length);
    bool idle() const { return ranges_.empty(); }

private:
    struct Range {
        std::uint64_t id, offset, end;
    };
    std::vector<Range> ranges_; // by age
    std::uint64_t next_id_ = 0;
    AsyncCondition released_;
};

} // namespace vmm::block
