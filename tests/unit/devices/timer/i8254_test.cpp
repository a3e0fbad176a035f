#include "devices/timer/i8254.h"
#include "devices/timer/speaker_gate.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_irq_line.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
struct Pit : testing::Test {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq;
    dev::I8254 pit{{irq, timers}};
    dev::SpeakerGate port61{pit};

    void at_tick(std::int64_t t) { clock.advance(timers, dev::I8254::clock.time_of(t) - clock.now()); }
    void pass(std::int64_t ticks) { at_tick(dev::I8254::clock.ticks_at(clock.now()) + ticks); }
    void control(unsigned value) { pit.write(3, 1, value); }
    void count(unsigned n, unsigned value) { pit.write(n, 1, value & 0xff), pit.write(n, 1, value >> 8); }
    unsigned read16(unsigned n) {
        auto low = unsigned(pit.read(n, 1));
        return low | unsigned(pit.read(n, 1)) << 8;
    }
    unsigned latched(unsigned n) { return control(n << 6), read16(n); }
    unsigned status(unsigned n) { return control(0xe0 | 2u << n), unsigned(pit.read(n, 1)); }
};
} // namespace

TEST_F(Pit, mode_0_raises_out_after_the_count_and_interrupts_once) {
    control(0x30);
    EXPECT_FALSE(pit.out(0));
    count(0, 1000);
    pass(1000);
    EXPECT_FALSE(irq.level());
    pass(1);
    EXPECT_TRUE(irq.level());
    pass(100'000);
    EXPECT_EQ(irq.rises(), 1u);
}

TEST_F(Pit, firmware_leaves_counter_0_ticking_18_times_a_second) {
    pit.set_up_as_firmware();
    unsigned before = irq.rises();
    pass(10 * 65536 + 1);
    EXPECT_EQ(irq.rises(), before + 10);
}

TEST_F(Pit, no_timer_runs_while_nobody_watches_out_0) {
    control(0x34), count(0, 1000);
    pit.watch_out0(false);
    EXPECT_EQ(timers.next_deadline(), TimerQueue::never);
    pass(1500);
    EXPECT_EQ(latched(0), 501u); // counting goes on
    unsigned before = irq.rises();
    pit.watch_out0(true);
    pass(501);
    EXPECT_EQ(irq.rises(), before + 1);
}

TEST_F(Pit, mode_0_counts_on_past_zero) {
    control(0x30), count(0, 10);
    pass(1 + 15);
    EXPECT_EQ(latched(0), 0xfffbu);
}

TEST_F(Pit, mode_2_interrupts_every_period_without_drift) {
    control(0x34), count(0, 1193);
    unsigned before = irq.rises();
    pass(1 + 1193 * 1000);
    EXPECT_EQ(irq.rises() - before, 1000u);
}

TEST_F(Pit, mode_2_counts_from_n_to_1) {
    control(0x34), count(0, 100);
    pass(1);
    EXPECT_EQ(latched(0), 100u);
    pass(99);
    EXPECT_EQ(latched(0), 1u);
    EXPECT_FALSE(pit.out(0));
    pass(1);
    EXPECT_EQ(latched(0), 100u);
    EXPECT_TRUE(pit.out(0));
}

TEST_F(Pit, a_new_count_in_mode_2_waits_for_the_end_of_the_period) {
    control(0x34), count(0, 1000);
    pass(1 + 300);
    count(0, 200);
    EXPECT_EQ(status(0) & 0x40, 0x40u) << "null count until then";
    pass(600);
    EXPECT_EQ(latched(0), 100u);
    pass(100);
    EXPECT_EQ(latched(0), 200u);
    EXPECT_EQ(status(0) & 0x40, 0u);
}

TEST_F(Pit, mode_3_is_high_for_the_longer_half_and_counts_by_two) {
    control(0x36), count(0, 5);
    pass(1);
    std::string wave;
    for (int i = 0; i < 10; ++i, pass(1)) wave += pit.out(0) ? '1' : '0';
    EXPECT_EQ(wave, "1110011100");
    control(0x36), count(0, 100);
    pass(1 + 10);
    EXPECT_EQ(latched(0), 80u);
}

TEST_F(Pit, zero_is_65536_or_10000_in_bcd) {
    control(0x34), count(0, 0);
    pass(1 + 1);
    EXPECT_EQ(latched(0), 0xffffu);
    control(0x35), count(0, 0);
    pass(1 + 1);
    EXPECT_EQ(latched(0), 0x9999u);
    pass(1234);
    EXPECT_EQ(latched(0), 0x8765u);
}

TEST_F(Pit, mode_1_waits_for_the_gate_and_is_retriggered_by_it) {
    control(0xb2), count(2, 100);
    pass(50);
    EXPECT_TRUE(pit.out(2));
    pit.set_gate(2, true);
    pass(1 + 60);
    EXPECT_FALSE(pit.out(2));
    pit.set_gate(2, false), pit.set_gate(2, true);
    EXPECT_FALSE(pit.out(2)); // the pulse is made longer, not cut in two
    pass(1 + 99);
    EXPECT_FALSE(pit.out(2));
    pass(1);
    EXPECT_TRUE(pit.out(2));
}

TEST_F(Pit, modes_4_and_5_strobe_low_for_one_tick) {
    pit.set_gate(2, true);
    control(0xb8), count(2, 10);
    pass(1 + 9);
    EXPECT_TRUE(pit.out(2));
    pass(1);
    EXPECT_FALSE(pit.out(2));
    pass(1);
    EXPECT_TRUE(pit.out(2));
    control(0xba), count(2, 10);
    pass(50);
    EXPECT_TRUE(pit.out(2));
    pit.set_gate(2, false), pit.set_gate(2, true);
    pass(1 + 10);
    EXPECT_FALSE(pit.out(2));
}

TEST_F(Pit, a_low_gate_pauses_mode_0) {
    pit.set_gate(2, true);
    control(0xb0), count(2, 100);
    pass(1 + 40);
    pit.set_gate(2, false);
    pass(1000);
    EXPECT_EQ(latched(2), 60u);
    pit.set_gate(2, true);
    pass(59);
    EXPECT_FALSE(pit.out(2));
    pass(1);
    EXPECT_TRUE(pit.out(2));
}

TEST_F(Pit, the_latch_holds_until_both_bytes_are_read) {
    control(0x34), count(0, 0x1234);
    pass(1);
    control(0x00);
    pass(100);
    control(0x00); // ignored while latched
    EXPECT_EQ(read16(0), 0x1234u);
    EXPECT_EQ(read16(0), 0x1234u - 100);
}

TEST_F(Pit, read_back_latches_status_before_count) {
    control(0x34), count(0, 0x1234);
    EXPECT_EQ(status(0) & 0x40, 0x40u) << "not loaded before the next clock";
    pass(1);
    control(0xc2);
    EXPECT_EQ(pit.read(0, 1), 0xb4u); // OUT high, loaded, RW 3, mode 2
    EXPECT_EQ(read16(0), 0x1234u);
}

TEST_F(Pit, single_byte_access_modes) {
    control(0x14), pit.write(0, 1, 0x40);
    pass(1);
    EXPECT_EQ(pit.read(0, 1), 0x40u);
    EXPECT_EQ(pit.read(0, 1), 0x40u);
    control(0x24), pit.write(0, 1, 0x40);
    pass(1);
    EXPECT_EQ(pit.read(0, 1), 0x40u); // of 0x4000
}

TEST_F(Pit, absurdly_fast_programs_are_bounded_for_the_host) {
    control(0x34), count(0, 2);
    unsigned before = irq.rises();
    clock.advance(timers, 1'000'000);
    EXPECT_GT(irq.rises() - before, 10u);
    EXPECT_LE(irq.rises() - before, 50u);
    control(0x34), count(0, 1); // not a legal count for mode 2
    clock.advance(timers, 1'000'000);
}

// Linux's pit_calibrate: counter 2 in mode 0, gate through port 0x61, polling OUT 2.
TEST_F(Pit, port_0x61_runs_the_calibration_one_shot) {
    port61.write(0, 1, (port61.read(0, 1) & ~0x02u) | 0x01);
    control(0xb0), count(2, 11931); // 10 ms
    Nanoseconds start = clock.now();
    while (!(port61.read(0, 1) & 0x20)) clock.advance(timers, 1000);
    EXPECT_NEAR(double(clock.now() - start), 1e7, 3000);
}

TEST_F(Pit, port_0x61_toggles_with_refresh_every_15_microseconds) {
    unsigned toggles = 0, last = 0;
    for (int i = 0; i < 10'000; ++i) {
        clock.advance(timers, 1000);
        unsigned bit = port61.read(0, 1) & 0x10;
        toggles += bit != last;
        last = bit;
    }
    EXPECT_NEAR(toggles, 10'000'000.0 / 15'085, 2);
}
