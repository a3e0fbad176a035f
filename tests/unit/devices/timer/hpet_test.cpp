#include "devices/timer/hpet.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_irq_line.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
struct FakeMsi final : dev::MsiTarget {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> sent;
    void deliver_msi(std::uint64_t address, std::uint32_t data) override { sent.emplace_back(address, data); }
};
struct HpetTest : testing::Test {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq0, irq8, pin2, pin20;
    FakeMsi msi;
    std::vector<bool> replaced;
    dev::Hpet hpet{{timers, irq0, irq8, pins(), &msi, [this](bool on) { replaced.push_back(on); }},
                   {.route_capability = 1u << 2 | 1u << 20}};

    std::vector<dev::IrqLine*> pins() {
        std::vector<dev::IrqLine*> lines(24, nullptr);
        lines[2] = &pin2, lines[20] = &pin20;
        return lines;
    }
    void advance(Nanoseconds by) { clock.advance(timers, by); }
    std::uint64_t get(std::uint64_t offset) { return hpet.read(offset, 8); }
    void set(std::uint64_t offset, std::uint64_t value) { hpet.write(offset, 8, value); }
};
constexpr std::uint64_t conf = 0x10, sta = 0x20, cnt = 0xf0, t0 = 0x100, t0_comp = 0x108, t2 = 0x140, t2_comp = 0x148;
constexpr std::uint64_t enable = 1, legacy = 2, level = 2, on = 4, periodic = 8, val_set = 0x40, bits32 = 0x100;
} // namespace

TEST_F(HpetTest, announces_three_64_bit_timers_and_10_ns) {
    EXPECT_EQ(get(0), 0x00989680'8086a201ull);
    EXPECT_EQ(get(t0), 0x00100004'00008030ull);
    EXPECT_EQ(hpet.read(4, 4), 10'000'000u);
    EXPECT_EQ(get(t0_comp), ~0ull); // all ones, as the specification's reset value
}

TEST_F(HpetTest, the_counter_runs_at_100_mhz_only_while_enabled) {
    advance(1000);
    EXPECT_EQ(get(cnt), 0u);
    set(conf, enable);
    advance(1000);
    EXPECT_EQ(get(cnt), 100u);
    set(conf, 0);
    advance(1000);
    EXPECT_EQ(get(cnt), 100u);
    set(cnt, 0xffffffff'fffffff0);
    set(conf, enable);
    advance(320);
    EXPECT_EQ(get(cnt), 0x10u);
}

TEST_F(HpetTest, a_one_shot_pulses_its_input_once) {
    set(t2, on | 20 << 9);
    set(conf, enable);
    set(t2_comp, 500);
    advance(4999);
    EXPECT_EQ(pin20.rises(), 0u);
    advance(1);
    EXPECT_EQ(pin20.rises(), 1u);
    advance(1'000'000'000);
    EXPECT_EQ(pin20.rises(), 1u);
}

TEST_F(HpetTest, a_32_bit_one_shot_comes_again_after_the_counter_wraps) {
    set(t2, on | bits32 | 20 << 9);
    set(conf, enable);
    set(t2_comp, 500);
    advance(5000);
    advance((1ll << 32) * 10 - 1);
    EXPECT_EQ(pin20.rises(), 1u);
    advance(1);
    EXPECT_EQ(pin20.rises(), 2u);
}

TEST_F(HpetTest, level_interrupts_stay_until_the_status_bit_is_written) {
    set(t2, on | level | 20 << 9);
    set(conf, enable);
    set(t2_comp, 500);
    advance(5000);
    EXPECT_TRUE(pin20.level());
    EXPECT_EQ(get(sta), 4u);
    set(sta, 4);
    EXPECT_FALSE(pin20.level());
    EXPECT_EQ(get(sta), 0u);
}

// Linux: stop, VAL_SET, first match, then the period in a second write.
TEST_F(HpetTest, periodic_mode_as_linux_sets_it_up) {
    set(conf, enable | legacy);
    set(t0, on | periodic | val_set | bits32);
    hpet.write(t0_comp, 4, 1000);
    hpet.write(t0_comp, 4, 100'000);
    EXPECT_EQ(get(t0) & val_set, 0u);
    advance(10'000);
    EXPECT_EQ(irq0.rises(), 1u);
    EXPECT_EQ(get(t0_comp), 101'000u);
    advance(10'000'000);
    EXPECT_EQ(irq0.rises(), 11u);
}

TEST_F(HpetTest, one_write_with_val_set_sets_match_and_period) {
    set(t2, on | periodic | val_set | 20 << 9);
    set(t2_comp, 0x1000);
    set(conf, enable);
    advance(0x1000 * 10);
    EXPECT_EQ(pin20.rises(), 1u);
    EXPECT_EQ(get(t2_comp), 0x2000u);
}

TEST_F(HpetTest, missed_periods_are_skipped_not_replayed) {
    set(t2, on | periodic | val_set | 20 << 9);
    set(t2_comp, 10'000);
    set(conf, enable);
    clock.set(100'000 * 10 + 50); // the host was away for ten periods
    timers.run_expired();
    EXPECT_EQ(pin20.rises(), 1u);
    EXPECT_EQ(get(t2_comp), 110'000u);
}

TEST_F(HpetTest, absurdly_short_periods_are_bounded_for_the_host) {
    set(t2, on | periodic | val_set | 20 << 9);
    set(t2_comp, 1);
    set(conf, enable);
    advance(1'000'000);
    EXPECT_GT(pin20.rises(), 10u);
    EXPECT_LE(pin20.rises(), 60u);
}

TEST_F(HpetTest, legacy_replacement_takes_irq_0_and_8_from_the_pit_and_the_rtc) {
    hpet.pit_input().set(true);
    EXPECT_TRUE(irq0.level());
    set(conf, enable | legacy);
    EXPECT_FALSE(irq0.level());
    hpet.rtc_input().set(true);
    EXPECT_FALSE(irq8.level());
    set(conf, enable);
    EXPECT_TRUE(irq0.level());
    EXPECT_TRUE(irq8.level());
}

TEST_F(HpetTest, tells_when_it_takes_the_places_of_pit_and_rtc) {
    set(conf, enable);
    EXPECT_TRUE(replaced.empty());
    set(conf, enable | legacy);
    hpet.reset();
    EXPECT_EQ(replaced, (std::vector<bool>{true, false}));
}

TEST_F(HpetTest, fsb_delivery_sends_a_message) {
    set(0x150, 0xfee00000'00000041);
    set(t2, on | 1 << 14);
    set(conf, enable);
    set(t2_comp, 10);
    advance(100);
    ASSERT_EQ(msi.sent.size(), 1u);
    EXPECT_EQ(msi.sent[0], (std::pair<std::uint64_t, std::uint32_t>(0xfee00000, 0x41)));
}

TEST_F(HpetTest, an_input_a_timer_cannot_use_does_not_read_back) {
    set(t2, 20 << 9);
    set(t2, 11 << 9);
    EXPECT_EQ(get(t2) & 31 << 9, 20u << 9);
}

TEST_F(HpetTest, rerouting_moves_an_asserted_level) {
    set(t2, on | level | 20 << 9);
    set(conf, enable);
    set(t2_comp, 5);
    advance(50);
    set(t2, on | level | 2 << 9);
    EXPECT_FALSE(pin20.level());
    EXPECT_TRUE(pin2.level());
}
