// Tasks and what they wait with.
#include "block/core/sync.h"
#include "tests/support/block_bench.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::block;

namespace {

Task<Result<int>> half(WorkerPool& pool, int value) {
    auto work = [value] { return value / 2; };
    int result = co_await on_pool(pool, work);
    if (value % 2) co_return error("{} is odd", value);
    co_return result;
}

Task<Result<int>> quarter(WorkerPool& pool, int value) {
    CO_TRY_ASSIGN(int once, co_await half(pool, value));
    CO_TRY_ASSIGN(int twice, co_await half(pool, once));
    co_return twice;
}

Task<Result<void>> hold(AsyncMutex& mutex, WorkerPool& pool, int id, std::vector<int>& order) {
    AsyncLock lock = co_await mutex.lock();
    order.push_back(id);
    CO_TRY(co_await half(pool, 2));
    order.push_back(id);
    co_return Result<void>{};
}

Task<Result<void>> run_holders(AsyncMutex& mutex, WorkerPool& pool, std::vector<int>& order) {
    std::vector<Task<Result<void>>> tasks;
    for (int id = 0; id < 5; ++id) tasks.push_back(hold(mutex, pool, id, order));
    Result<void> result = co_await when_all(std::move(tasks));
    co_return result;
}

Task<Result<void>> count_peak(WorkerPool& pool, int& now, int& peak, bool fail) {
    peak = std::max(peak, ++now);
    Result<int> ignored = co_await half(pool, 2);
    --now;
    if (fail || !ignored.ok()) co_return error("told to fail");
    co_return Result<void>{};
}

Task<Result<void>> bounded(WorkerPool& pool, int& peak, int fail_at, int& started) {
    TaskGroup group(3);
    int now = 0;
    for (int i = 0; i < 20; ++i) {
        bool more = co_await group.start(count_peak(pool, now, peak, i == fail_at));
        if (!more) break;
        ++started;
    }
    Result<void> result = co_await group.finish();
    co_return result;
}

Task<Result<void>> lock_range(RangeLocks& locks, WorkerPool& pool, std::uint64_t offset, int id,
                              std::vector<int>& order) {
    RangeLocks::Hold held = co_await locks.lock(offset, 10);
    CO_TRY(co_await half(pool, 2));
    order.push_back(id);
    co_return Result<void>{};
}

TEST(Task, co_try_passes_values_and_first_error) {
    BlockBench bench;
    EXPECT_EQ(bench.run(quarter(bench.pool, 8)).value(), 2);
    EXPECT_EQ(bench.run(quarter(bench.pool, 6)).error().message(), "3 is odd");
}

TEST(AsyncMutex, owners_come_in_order_and_never_overlap) {
    BlockBench bench;
    AsyncMutex mutex;
    std::vector<int> order;
    ASSERT_TRUE(bench.run(run_holders(mutex, bench.pool, order)).ok());
    EXPECT_EQ(order, (std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3, 4, 4}));
    EXPECT_FALSE(mutex.locked());
}

TEST(TaskGroup, keeps_to_its_limit_and_stops_after_an_error) {
    BlockBench bench;
    int peak = 0, started = 0;
    EXPECT_TRUE(bench.run(bounded(bench.pool, peak, -1, started)).ok());
    EXPECT_EQ(peak, 3);
    EXPECT_EQ(started, 20);
    started = 0;
    EXPECT_EQ(bench.run(bounded(bench.pool, peak, 4, started)).error().message(), "told to fail");
    EXPECT_LT(started, 20);
}

TEST(RangeLocks, overlapping_ranges_wait_in_order) {
    BlockBench bench;
    RangeLocks locks;
    std::vector<int> order;
    std::vector<Task<Result<void>>> tasks;
    for (int id = 0; id < 4; ++id) tasks.push_back(lock_range(locks, bench.pool, std::uint64_t(id) * 5, id, order));
    ASSERT_TRUE(bench.run(when_all(std::move(tasks))).ok());
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
    EXPECT_TRUE(locks.idle());
}

} // namespace
