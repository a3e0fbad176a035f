#include "tests/support/apic_rig.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
constexpr std::uint64_t lvt_timer = 0x320, initial = 0x380, current = 0x390, divide = 0x3e0;
struct ApicTimer : testing::Test, ApicRig {
    ApicTimer() { enable_all(); }
    int take() {
        int vector = apic().interrupt_pending() ? apic().acknowledge() : -1;
        if (vector >= 0) apic().write(0xb0, 4, 0);
        return vector;
    }
};
} // namespace

// Linux calibrates by letting a masked one-shot count down from the top for a known time.
TEST_F(ApicTimer, calibration_sees_1_ghz_divided) {
    apic().write(lvt_timer, 4, 0x10000);
    apic().write(divide, 4, 3); // by 16
    apic().write(initial, 4, 0xffffffff);
    advance(100'000'000);
    EXPECT_EQ(0xffffffffu - apic().read(current, 4), 100'000'000u / 16);
}

TEST_F(ApicTimer, every_divider_counts_at_its_rate) {
    unsigned const by[] = {2, 4, 8, 16, 32, 64, 128, 1};
    for (unsigned code = 0; code < 8; ++code) {
        apic().write(divide, 4, (code & 3) | (code & 4) << 1);
        apic().write(initial, 4, 1'000'000);
        advance(128'000);
        EXPECT_EQ(1'000'000 - apic().read(current, 4), 128'000 / by[code]);
    }
}

TEST_F(ApicTimer, one_shot_fires_once_and_reads_zero_after) {
    apic().write(divide, 4, 0xb);
    apic().write(lvt_timer, 4, 0xec);
    apic().write(initial, 4, 1000);
    advance(999);
    EXPECT_EQ(take(), -1);
    EXPECT_EQ(apic().read(current, 4), 1u);
    advance(1);
    EXPECT_EQ(take(), 0xec);
    advance(1'000'000);
    EXPECT_EQ(take(), -1);
    EXPECT_EQ(apic().read(current, 4), 0u);
}

TEST_F(ApicTimer, periodic_fires_every_period) {
    apic().write(divide, 4, 0xb);
    apic().write(lvt_timer, 4, 0x200ec);
    apic().write(initial, 4, 1'000'000);
    for (int i = 0; i < 5; ++i) {
        advance(999'999);
        EXPECT_EQ(take(), -1);
        advance(1);
        EXPECT_EQ(take(), 0xec);
    }
    apic().write(initial, 4, 0);
    advance(10'000'000);
    EXPECT_EQ(take(), -1);
}

TEST_F(ApicTimer, a_change_of_mode_goes_on_with_the_count_under_way) {
    apic().write(divide, 4, 0xb);
    apic().write(lvt_timer, 4, 0x200ec);
    apic().write(initial, 4, 1'000'000);
    advance(3'400'000);
    take();
    apic().write(lvt_timer, 4, 0xec); // one-shot: the period under way is the last
    EXPECT_EQ(apic().read(current, 4), 600'000u);
    advance(599'999);
    EXPECT_EQ(take(), -1);
    advance(1);
    EXPECT_EQ(take(), 0xec);
    advance(5'000'000);
    EXPECT_EQ(take(), -1);
    apic().write(initial, 4, 1'000'000);
    advance(700'000);
    apic().write(lvt_timer, 4, 0x200ec);
    EXPECT_EQ(apic().read(current, 4), 300'000u);
    advance(300'000);
    EXPECT_EQ(take(), 0xec);
    advance(1'000'000);
    EXPECT_EQ(take(), 0xec);
}

TEST_F(ApicTimer, periodic_mode_does_not_start_a_one_shot_that_is_over) {
    apic().write(divide, 4, 0xb);
    apic().write(lvt_timer, 4, 0xec);
    apic().write(initial, 4, 1000);
    advance(2500);
    EXPECT_EQ(take(), 0xec);
    apic().write(lvt_timer, 4, 0x200ec);
    advance(300);
    EXPECT_EQ(apic().read(current, 4), 0u);
    advance(1'000'000);
    EXPECT_EQ(take(), -1);
    apic().write(initial, 4, 30'000);
    EXPECT_EQ(apic().read(current, 4), 30'000u);
    advance(30'000);
    EXPECT_EQ(take(), 0xec);
}

TEST_F(ApicTimer, an_absurdly_short_period_is_bounded_for_the_host) {
    apic().write(divide, 4, 0xb);
    apic().write(lvt_timer, 4, 0x200ec);
    apic().write(initial, 4, 1);
    int fired = 0;
    for (int i = 0; i < 1000; ++i) advance(1000), fired += take() >= 0;
    EXPECT_GT(fired, 10);
    EXPECT_LE(fired, 50);
}

TEST_F(ApicTimer, an_expiry_while_masked_is_not_delivered_later) {
    apic().write(divide, 4, 0xb);
    apic().write(lvt_timer, 4, 0x100ec);
    apic().write(initial, 4, 1000);
    advance(2000);
    apic().write(lvt_timer, 4, 0xec);
    advance(2000);
    EXPECT_EQ(take(), -1);
}

TEST_F(ApicTimer, an_expiry_that_is_due_is_not_lost_when_the_guest_reprograms_first) {
    apic().write(divide, 4, 0xb);
    apic().write(lvt_timer, 4, 0xec);
    apic().write(initial, 4, 1000);
    clock.set(1000); // the queue has not run
    apic().write(initial, 4, 5000);
    EXPECT_EQ(take(), 0xec);
}

TEST_F(ApicTimer, tsc_deadline_fires_at_the_tsc_and_clears_itself) {
    apic().write(lvt_timer, 4, 0x400ec);
    ASSERT_TRUE(apic().write_msr(0x6e0, 20'000)); // at 10 us
    EXPECT_EQ(apic().read_msr(0x6e0), 20'000u);
    EXPECT_EQ(apic().read(current, 4), 0u);
    advance(9'999);
    EXPECT_EQ(take(), -1);
    advance(1);
    EXPECT_EQ(take(), 0xec);
    EXPECT_EQ(apic().read_msr(0x6e0), 0u);
}

TEST_F(ApicTimer, a_deadline_in_the_past_fires_at_once_and_zero_disarms) {
    apic().write(lvt_timer, 4, 0x400ec);
    advance(1000);
    ASSERT_TRUE(apic().write_msr(0x6e0, 1));
    EXPECT_EQ(take(), 0xec);
    ASSERT_TRUE(apic().write_msr(0x6e0, 1'000'000));
    ASSERT_TRUE(apic().write_msr(0x6e0, 0));
    advance(10'000'000);
    EXPECT_EQ(take(), -1);
    ASSERT_TRUE(apic().write_msr(0x6e0, ~0ull)); // out of reach, not overflow
    advance(10'000'000);
    EXPECT_EQ(take(), -1);
}

TEST_F(ApicTimer, the_deadline_is_ignored_in_other_modes_and_cleared_by_leaving) {
    ASSERT_TRUE(apic().write_msr(0x6e0, 20'000));
    EXPECT_EQ(apic().read_msr(0x6e0), 0u);
    apic().write(lvt_timer, 4, 0x400ec);
    ASSERT_TRUE(apic().write_msr(0x6e0, 20'000));
    apic().write(lvt_timer, 4, 0xec);
    advance(1'000'000);
    EXPECT_EQ(take(), -1);
}
