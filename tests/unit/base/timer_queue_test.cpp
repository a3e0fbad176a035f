#include "tests/support/fake_clock.h"
#include "vmm/base/timer_queue.h"

#include <gtest/gtest.h>

#include <vector>

using namespace vmm;

TEST(TimerQueue, fires_in_order_of_deadline_whatever_the_order_of_arming) {
    test::FakeClock clock;
    TimerQueue queue(clock);
    std::vector<int> fired;
    Timer late(queue, [&] { fired.push_back(2); });
    Timer early(queue, [&] { fired.push_back(1); });
    late.arm(20);
    early.arm(10);
    clock.advance(queue, 15);
    EXPECT_EQ(fired, std::vector{1});
    clock.advance(queue, 5);
    EXPECT_EQ(fired, (std::vector{1, 2}));
    EXPECT_FALSE(late.armed());
}

TEST(TimerQueue, callback_may_rearm_its_own_timer) {
    test::FakeClock clock;
    TimerQueue queue(clock);
    int count = 0;
    Timer* self = nullptr;
    Timer periodic(queue, [&] {
        ++count;
        self->arm(clock.now() + 10);
    });
    self = &periodic;
    periodic.arm(10);
    clock.advance(queue, 100);
    EXPECT_EQ(count, 10);
}

TEST(TimerQueue, a_destroyed_or_cancelled_timer_does_not_fire) {
    test::FakeClock clock;
    TimerQueue queue(clock);
    int count = 0;
    {
        Timer gone(queue, [&] { ++count; });
        gone.arm(1);
    }
    Timer cancelled(queue, [&] { ++count; });
    cancelled.arm(1);
    cancelled.cancel();
    clock.advance(queue, 10);
    EXPECT_EQ(count, 0);
    EXPECT_EQ(queue.next_deadline(), TimerQueue::never);
}

TEST(VirtualClock, stands_still_while_stopped_and_continues_from_there) {
    VirtualClock clock;
    clock.stop();
    Nanoseconds at = clock.now();
    EXPECT_EQ(clock.now(), at);
    clock.set(1'000'000'000'000);
    EXPECT_EQ(clock.now(), 1'000'000'000'000);
    clock.start();
    EXPECT_GE(clock.now(), 1'000'000'000'000);
}
