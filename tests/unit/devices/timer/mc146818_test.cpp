#include "devices/timer/calendar.h"
#include "devices/timer/mc146818.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_irq_line.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
constexpr Nanoseconds s = nanoseconds_per_second;
// 2024-02-28 23:59:58 UTC, a Wednesday.
constexpr Nanoseconds leap_eve = 1'709'164'798 * s;

struct Wall final : Clock {
    Clock const& base;
    Nanoseconds offset;
    Wall(Clock const& b, Nanoseconds o) : base(b), offset(o) {}
    Nanoseconds now() const override { return base.now() + offset; }
};

struct Rtc : testing::Test {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq;
    Wall wall{clock, leap_eve};
    dev::Mc146818 rtc{{irq, timers, wall}, {}};

    void advance(Nanoseconds by) { clock.advance(timers, by); }
    unsigned get(unsigned i) { return rtc.write(0, 1, i), unsigned(rtc.read(1, 1)); }
    void set(unsigned i, unsigned v) { rtc.write(0, 1, i), rtc.write(1, 1, v); }
    std::string time() {
        return fmt::format("{:02x}{:02x}-{:02x}-{:02x} {:02x}:{:02x}:{:02x} day {}", get(0x32), get(9), get(8), get(7),
                           get(4), get(2), get(0), get(6));
    }
};
} // namespace

TEST(Calendar, agrees_with_itself_and_known_dates) {
    EXPECT_EQ(dev::days_from_civil(1970, 1, 1), 0);
    EXPECT_EQ(dev::days_from_civil(2000, 3, 1), 11017);
    for (std::int64_t t = -5'000'000'000; t < 9'000'000'000; t += 7'654'321)
        EXPECT_EQ(dev::seconds_from_civil(dev::civil_from_seconds(t)), t);
    EXPECT_EQ(dev::civil_from_seconds(leap_eve / s).weekday, 3u);
}

TEST_F(Rtc, shows_the_wall_clock_in_bcd_and_carries_over_a_leap_day) {
    EXPECT_EQ(time(), "2024-02-28 23:59:58 day 4");
    advance(3 * s);
    EXPECT_EQ(time(), "2024-02-29 00:00:01 day 5");
    advance(86400 * s);
    EXPECT_EQ(time(), "2024-03-01 00:00:01 day 6");
}

TEST_F(Rtc, a_base_offset_makes_local_time_or_a_start_date) {
    dev::Mc146818 local{{irq, timers, wall}, {.base_offset = 3600 * s}};
    local.write(0, 1, 4);
    EXPECT_EQ(local.read(1, 1), 0u);
}

TEST_F(Rtc, binary_and_12_hour_formats) {
    set(0x0b, 0x04);
    EXPECT_EQ(get(4), 0x80u | 11);
    EXPECT_EQ(get(2), 59u);
    advance(2 * s);
    EXPECT_EQ(get(4), 12u) << "midnight is 12 AM";
}

TEST_F(Rtc, update_in_progress_announces_the_change_244_microseconds_before) {
    EXPECT_EQ(get(0x0a) & 0x80, 0u);
    advance(s - 244'001);
    EXPECT_EQ(get(0x0a) & 0x80, 0u);
    EXPECT_EQ(get(0), 0x58u);
    advance(1);
    EXPECT_EQ(get(0x0a) & 0x80, 0x80u);
    EXPECT_EQ(get(0), 0x58u);
    advance(244'000);
    EXPECT_EQ(get(0x0a) & 0x80, 0u);
    EXPECT_EQ(get(0), 0x59u);
}

// Linux's mc146818_set_time: SET, divider reset, write, release.
TEST_F(Rtc, setting_the_time_starts_half_a_second_before_the_next_update) {
    set(0x0b, get(0x0b) | 0x80);
    set(0x0a, get(0x0a) | 0x70);
    set(9, 0x99), set(0x32, 0x19), set(8, 0x12), set(7, 0x31), set(4, 0x23), set(2, 0x59), set(0, 0x59), set(6, 6);
    advance(10 * s);
    EXPECT_EQ(time(), "1999-12-31 23:59:59 day 6");
    set(0x0b, get(0x0b) & ~0x80u);
    set(0x0a, 0x26);
    EXPECT_EQ(time(), "1999-12-31 23:59:59 day 6");
    advance(s / 2 - 1);
    EXPECT_EQ(get(0), 0x59u);
    advance(1);
    EXPECT_EQ(time(), "2000-01-01 00:00:00 day 7");
}

TEST_F(Rtc, nonsense_in_the_time_registers_does_no_harm) {
    for (unsigned v : {0xffu, 0x00u, 0xaau, 0x7fu})
        for (unsigned reg : {0u, 2u, 4u, 6u, 7u, 8u, 9u, 0x32u}) set(reg, v), advance(s);
    time();
}

TEST_F(Rtc, update_interrupts_come_every_second_and_reading_c_ends_them) {
    set(0x0b, 0x12);
    advance(s - 1);
    EXPECT_FALSE(irq.level());
    advance(1);
    EXPECT_TRUE(irq.level());
    EXPECT_EQ(get(0x0c), 0xd0u) << "update, and the periodic flag though it is not enabled";
    EXPECT_FALSE(irq.level());
    EXPECT_EQ(get(0x0c), 0u);
    advance(10 * s);
    EXPECT_EQ(irq.rises(), 2u) << "no more until C is read";
}

TEST_F(Rtc, the_alarm_fires_at_its_time_and_wildcards_repeat) {
    set(1, 0x01), set(3, 0x00), set(5, 0x00);
    set(0x0b, 0x22);
    advance(3 * s - 1);
    EXPECT_FALSE(irq.level());
    advance(1);
    EXPECT_TRUE(irq.level());
    EXPECT_EQ(get(0x0c) & 0xa0, 0xa0u);
    set(3, 0xff), set(5, 0xc0); // every minute at :01
    advance(60 * s - 1);
    EXPECT_FALSE(irq.level());
    advance(1);
    EXPECT_TRUE(irq.level());
}

TEST_F(Rtc, an_alarm_that_never_matches_never_fires) {
    set(1, 0x99), set(3, 0x99), set(5, 0x99);
    set(0x0b, 0x22);
    advance(200'000 * s);
    EXPECT_FALSE(irq.level());
}

TEST_F(Rtc, periodic_interrupts_at_the_selected_rate) {
    set(0x0a, 0x26); // 1024 Hz
    set(0x0b, 0x42);
    unsigned served = 0;
    for (Nanoseconds end = clock.now() + s; clock.now() < end; advance(100'000))
        if (irq.level()) get(0x0c), ++served;
    EXPECT_NEAR(served, 1024, 1);
    set(0x0a, 0x20); // off
    get(0x0c);
    advance(s);
    EXPECT_FALSE(irq.level());
}

TEST_F(Rtc, with_slew_periodic_interrupts_nobody_read_in_time_come_later) {
    dev::Mc146818 slewing{{irq, timers, wall}, {.slew = true}};
    auto ack = [&] { return slewing.write(0, 1, 0x0c), unsigned(slewing.read(1, 1)); };
    slewing.write(0, 1, 0x0b), slewing.write(1, 1, 0x42); // periodic, 1024 Hz
    advance(s / 1024 * 4 + 100);
    unsigned given = 0;
    while (ack() & 0x40) ++given;
    EXPECT_EQ(given, 4u);
    advance(s / 1024 * 3);
    slewing.write(0, 1, 0x0b), slewing.write(1, 1, 2); // off: nothing is owed any more
    slewing.write(0, 1, 0x0b), slewing.write(1, 1, 0x42);
    EXPECT_TRUE(ack() & 0x40);
    EXPECT_FALSE(ack() & 0x40);
}

TEST_F(Rtc, ram_and_extended_ram_keep_their_bytes_over_reset) {
    set(0x40, 0x12);
    rtc.write(2, 1, 0x40), rtc.write(3, 1, 0x34);
    set(0x0b, 0x72);
    rtc.reset();
    EXPECT_EQ(get(0x40), 0x12u);
    rtc.write(2, 1, 0x40);
    EXPECT_EQ(rtc.read(3, 1), 0x34u);
    EXPECT_EQ(get(0x0b), 0x02u) << "interrupts are off";
    EXPECT_EQ(get(0x0d), 0x80u);
    EXPECT_EQ(rtc.read(0, 1), 0xffu);
}

TEST_F(Rtc, bit_7_of_the_index_masks_nmi_and_selects_nothing) {
    set(0x40, 0x12);
    rtc.write(0, 1, 0xc0);
    EXPECT_TRUE(rtc.nmi_masked());
    EXPECT_EQ(rtc.read(1, 1), 0x12u);
}
