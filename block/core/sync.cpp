#include "block/core/sync.h"

#include <algorithm>

namespace vmm::block {

void AsyncLock::unlock() {
    if (AsyncMutex* mutex = std::exchange(mutex_, nullptr)) mutex->unlock();
}

AsyncMutex::~AsyncMutex() {
    VMM_ASSERT(waiting_.empty() && !locked_);
    if (destroyed_) *destroyed_ = true;
}

bool AsyncMutex::Awaiter::await_ready() const noexcept {
    // A newcomer may not overtake those that wait, not even between an unlock and the hand-over.
    if (mutex.locked_ || !mutex.waiting_.empty()) return false;
    mutex.locked_ = true;
    return true;
}

void AsyncMutex::Awaiter::await_suspend(std::coroutine_handle<> waiting) { mutex.waiting_.push_back(waiting); }

void AsyncMutex::unlock() {
    VMM_ASSERT(locked_);
    locked_ = false;
    if (handing_over_) return; // the loop below, further up the stack, goes on
    bool destroyed = false;
    handing_over_ = true;
    destroyed_ = &destroyed;
    while (!locked_ && !waiting_.empty()) {
        std::coroutine_handle<> next = waiting_.front();
        waiting_.pop_front();
        locked_ = true;
        next.resume();
        if (destroyed) return;
    }
    destroyed_ = nullptr;
    handing_over_ = false;
}

void AsyncCondition::notify_all() {
    std::vector<std::coroutine_handle<>> now;
    now.swap(waiting_);
    for (std::coroutine_handle<> one : now) one.resume();
}

detail::Detached TaskGroup::run(Task<Result<void>> task) {
    Result<void> result = co_await std::move(task);
    if (!result.ok() && !error_) error_ = result.error();
    --in_flight_;
    changed_.notify_all();
}

Task<bool> TaskGroup::start(Task<Result<void>> task) {
    while (in_flight_ >= limit_ && !error_) co_await changed_.wait();
    if (error_) co_return false;
    ++in_flight_;
    run(std::move(task));
    co_return !error_;
}

Task<Result<void>> TaskGroup::finish() {
    while (in_flight_ > 0) co_await changed_.wait();
    if (error_) co_return *error_;
    co_return Result<void>{};
}

Task<Result<void>> when_all(std::vector<Task<Result<void>>> tasks) {
    TaskGroup group(tasks.size() + 1);
    for (Task<Result<void>>& task : tasks) {
        bool started = co_await group.start(std::move(task));
        if (!started) break;
    }
    Result<void> result = co_await group.finish();
    co_return result;
}

void RangeLocks::Hold::release() {
    RangeLocks* locks = std::exchange(locks_, nullptr);
    if (!locks) return;
    std::erase_if(locks->ranges_, [this](Range const& r) { return r.id == id_; });
    locks->released_.notify_all();
}

Task<RangeLocks::Hold> RangeLocks::lock(std::uint64_t offset, std::uint64_t length) {
    std::uint64_t id = next_id_++;
    std::uint64_t end = offset + length;
    VMM_ASSERT(length > 0 && end > offset);
    ranges_.push_back(Range{id, offset, end});
    for (;;) {
        // ranges_ is by age: only those before ours count.
        auto blocker = std::ranges::find_if(
            ranges_, [&](Range const& r) { return r.id == id || (r.offset < end && offset < r.end); });
        if (blocker->id == id) break;
        co_await released_.wait();
    }
    co_return Hold(this, id);
}

} // namespace vmm::block
