#include "vmm/base/event_loop.h"
#include "vmm/base/timer_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

using namespace vmm;

TEST(EventLoop, delivers_readiness_until_unwatched) {
    auto loop = EventLoop::create().value();
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    UniqueFd reader(ends[0]), writer(ends[1]);
    int calls = 0;
    loop->watch(reader.get(), Ready::read, [&](Ready) {
        char c;
        ASSERT_EQ(read(reader.get(), &c, 1), 1);
        if (++calls == 2) loop->unwatch(reader.get());
    });
    ASSERT_EQ(write(writer.get(), "abc", 3), 3);
    for (int i = 0; i < 5; ++i) loop->run_once(0);
    EXPECT_EQ(calls, 2);
}

TEST(EventLoop, posted_work_runs_on_the_loop_thread_and_stop_ends_run) {
    auto loop = EventLoop::create().value();
    std::thread::id ran_on;
    std::thread other([&] {
        loop->post([&] {
            ran_on = std::this_thread::get_id();
            loop->stop();
        });
    });
    loop->run();
    other.join();
    EXPECT_EQ(ran_on, std::this_thread::get_id());
}

TEST(EventLoop, waits_no_longer_than_the_next_deadline) {
    auto loop = EventLoop::create().value();
    Nanoseconds deadline = host_monotonic() + 2'000'000;
    bool fired = false;
    loop->set_deadline_source({.next = [&] { return fired ? INT64_MAX : deadline; }, .run = [&] { fired = true; }});
    while (!fired) loop->run_once(-1);
    EXPECT_GE(host_monotonic(), deadline);
}

TEST(EventLoop, a_regular_file_is_always_ready) {
    auto loop = EventLoop::create().value();
    UniqueFd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    int calls = 0;
    loop->watch(file.get(), Ready::read, [&](Ready) { ++calls; });
    loop->run_once(-1);
    EXPECT_EQ(calls, 1);
}
