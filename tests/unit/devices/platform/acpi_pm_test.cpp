#include "devices/platform/acpi_pm.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_irq_line.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;

namespace {
struct FakePower final : PowerControl {
    unsigned offs = 0;
    void power_off() override { ++offs; }
};

struct Pm : testing::Test {
    test::FakeClock clock;
    TimerQueue timers{clock};
    test::FakeIrqLine sci;
    FakePower power;
    Log log{"test"};
    AcpiPm pm{{sci, timers, power, log}};

    unsigned in(unsigned offset, unsigned size) { return unsigned(pm.pm().read(offset, size)); }
    void out(unsigned offset, unsigned size, unsigned value) { pm.pm().write(offset, size, value); }
};
constexpr Nanoseconds second = nanoseconds_per_second;
} // namespace

TEST_F(Pm, timer_counts_3579545_a_second_in_24_bits) {
    clock.set(second);
    EXPECT_EQ(in(8, 4), 3579545u);
    clock.set(10 * second);
    EXPECT_EQ(in(8, 4), 35795450u & 0xffffff);
    EXPECT_EQ(in(9, 2), (35795450u & 0xffffff) >> 8 & 0xffff);
}

TEST_F(Pm, timer_can_be_32_bits_wide) {
    AcpiPm wide({sci, timers, power, log}, PmTimerWidth::bits32);
    clock.set(10 * second);
    EXPECT_EQ(wide.pm().read(8, 4), 35795450u);
}

TEST_F(Pm, timer_status_is_set_when_the_top_bit_changes_and_cleared_by_writing_one) {
    EXPECT_EQ(in(0, 2) & 1, 0u);
    clock.set(second * 0x800000 / 3579545 + 1);
    EXPECT_EQ(in(0, 2) & 1, 1u);
    out(0, 2, 1);
    EXPECT_EQ(in(0, 2) & 1, 0u);
}

TEST_F(Pm, an_enabled_timer_carry_raises_the_sci) {
    pm.enter_acpi_mode();
    out(2, 2, 1);
    clock.advance(timers, second * 2);
    EXPECT_FALSE(sci.level());
    clock.advance(timers, second);
    EXPECT_TRUE(sci.level());
    out(0, 2, 1);
    EXPECT_FALSE(sci.level());
    clock.advance(timers, second * 3);
    EXPECT_TRUE(sci.level());
}

TEST_F(Pm, power_button_raises_the_sci_only_in_acpi_mode) {
    out(2, 2, 0x100);
    pm.press_power_button();
    EXPECT_FALSE(sci.level());
    pm.smi().write(0, 1, AcpiPm::acpi_enable);
    EXPECT_EQ(in(4, 2) & 1, 1u);
    EXPECT_TRUE(sci.level());
    EXPECT_EQ(in(0, 2) & 0x100, 0x100u);
    out(0, 2, 0x100);
    EXPECT_FALSE(sci.level());
    pm.smi().write(0, 1, AcpiPm::acpi_disable);
    EXPECT_EQ(in(4, 2) & 1, 0u);
}

TEST_F(Pm, slp_en_with_type_s5_powers_off_once) {
    out(4, 2, 0x2001);
    EXPECT_EQ(power.offs, 1u);
    EXPECT_EQ(in(4, 2), 1u); // SLP_EN reads as zero
    out(4, 1, 1);
    EXPECT_EQ(power.offs, 1u);
    out(4, 2, 0x2000 | 1 << 10);
    EXPECT_EQ(power.offs, 1u);
}

TEST_F(Pm, a_general_event_stays_until_its_input_falls_and_its_status_is_cleared) {
    pm.enter_acpi_mode();
    pm.gpe().write(2, 1, 0x04);
    pm.set_gpe(2, true);
    EXPECT_TRUE(sci.level());
    pm.gpe().write(0, 1, 0x04);
    EXPECT_TRUE(sci.level());
    pm.set_gpe(2, false);
    EXPECT_TRUE(sci.level());
    pm.gpe().write(0, 1, 0x04);
    EXPECT_FALSE(sci.level());
    EXPECT_EQ(pm.gpe().read(2, 1), 0x04u);
}

TEST_F(Pm, a_loaded_state_raises_its_sci_again) {
    pm.enter_acpi_mode();
    out(2, 2, 0x100);
    pm.press_power_button();
    StateWriter writer;
    pm.save(writer);
    pm.reset();
    EXPECT_FALSE(sci.level());
    StateReader reader(writer.bytes());
    ASSERT_TRUE(pm.load(reader).ok());
    EXPECT_TRUE(sci.level());
}

TEST_F(Pm, each_write_of_the_apm_control_port_pulses_the_smi_line) {
    test::FakeIrqLine smi;
    AcpiPm with({.sci = sci, .timers = timers, .power = power, .log = log, .smi = &smi});
    with.smi().write(0, 1, 0x12);
    with.smi().write(0, 1, 0x12);
    with.smi().write(1, 1, 0x34); // the status port does not
    EXPECT_EQ(smi.rises(), 2u);
    EXPECT_FALSE(smi.level());
    EXPECT_EQ(with.smi().read(0, 1), 0x12u);
}
