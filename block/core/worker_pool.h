// WorkerPool: threads for compression, encryption and system calls that block.
#pragma once
#include "block/core/task.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/thread_annotations.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace vmm::block {

// Threads start when first needed, at most `max_threads`. submit() from any thread. Destruction runs what was
// submitted.
class WorkerPool {
public:
    // `loop`: where on_pool resumes; must outlive the pool. 0: as many as the host has CPUs, at least 4 (they often
    // block).
    explicit WorkerPool(EventLoop& loop, unsigned max_threads = 0);
    ~WorkerPool();
    WorkerPool(WorkerPool const&) = delete;
    WorkerPool& operator=(WorkerPool const&) = delete;

    EventLoop& loop() const { return loop_; }
    unsigned max_threads() const { return max_threads_; }
    // Runs `work` on some worker.
    void submit(std::function<void()> work);

private:
    void run();
    EventLoop& loop_;
    unsigned max_threads_;
    std::mutex mutex_; // guards all below
    std::condition_variable wake_;
    std::deque<std::function<void()>> queue_;
    std::vector<std::thread> threads_;
    unsigned idle_ = 0;
    bool stopping_ = false;
};

namespace detail {
template <class F> struct PoolAwaiter {
    using Value = std::invoke_result_t<F&>;
    WorkerPool& pool;
    F work;
    std::optional<std::conditional_t<std::is_void_v<Value>, bool, Value>> result = {};
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) {
        pool.submit([this, waiting] {
            if constexpr (std::is_void_v<Value>) {
                work();
                result.emplace(true);
            } else {
                result.emplace(work());
            }
            pool.loop().post([waiting] { waiting.resume(); });
        });
    }
    Value await_resume() {
        if constexpr (!std::is_void_v<Value>) return std::move(*result);
    }
};
} // namespace detail

// `auto size = co_await on_pool(pool, work);`: runs work() on a worker thread, its result resumes the task on the loop.
// `work` is kept in the awaiting frame; name the lambda before the co_await (see the GCC note in task.h).
template <class F> detail::PoolAwaiter<F> on_pool(WorkerPool& pool, F work) { return {pool, std::move(work)}; }

} // namespace vmm::block
