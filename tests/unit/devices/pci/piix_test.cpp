// The south bridge: PIIX3 interrupt routing and reset control, PIIX4 power management function and SMBus.
#include "devices/pci/piix3.h"
#include "devices/pci/piix4_pm.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_irq_line.h"
#include "tests/unit/devices/pci/fakes.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;

namespace {
struct IsaBridge : testing::Test {
    std::array<test::FakeIrqLine, 16> irqs;
    test::FakeIrqLine reset;
    Piix3 bridge{[this] {
        Piix3::Needs needs{.reset = &reset};
        for (unsigned i = 0; i < 16; ++i) needs.irqs[i] = &irqs[i];
        return needs;
    }()};
};
} // namespace

TEST_F(IsaBridge, is_8086_7000_and_routes_nothing_after_reset) {
    EXPECT_EQ(bridge.function().read(0, 4), 0x70008086u);
    EXPECT_EQ(bridge.function().read(0x60, 4), 0x80808080u);
    bridge.set_intx(0, true);
    for (auto& irq : irqs) EXPECT_FALSE(irq.level());
}

TEST_F(IsaBridge, wires_reach_the_interrupt_they_are_routed_to_and_share_it) {
    bridge.route({10, 11, 11, 5});
    bridge.set_intx(1, true);
    bridge.set_intx(2, true);
    EXPECT_TRUE(irqs[11].level());
    bridge.set_intx(1, false);
    EXPECT_TRUE(irqs[11].level());
    bridge.set_intx(2, false);
    EXPECT_FALSE(irqs[11].level());
}

TEST_F(IsaBridge, rerouting_moves_the_level_and_reserved_interrupts_are_not_driven) {
    bridge.route({10, 10, 10, 10});
    bridge.set_intx(0, true);
    bridge.function().write(0x60, 1, 11);
    EXPECT_FALSE(irqs[10].level());
    EXPECT_TRUE(irqs[11].level());
    bridge.function().write(0x60, 1, 8);
    EXPECT_FALSE(irqs[11].level());
    EXPECT_FALSE(irqs[8].level());
}

TEST_F(IsaBridge, reset_control_pulses_reset_when_rcpu_is_written) {
    bridge.reset_control().write(0, 1, 0x02);
    EXPECT_EQ(reset.rises(), 0u);
    EXPECT_EQ(bridge.reset_control().read(0, 1), 2u);
    bridge.reset_control().write(0, 1, 0x06);
    EXPECT_EQ(reset.rises(), 1u);
}

TEST_F(IsaBridge, a_loaded_state_drives_its_interrupts) {
    bridge.route({10, 11, 11, 5});
    bridge.set_intx(0, true);
    StateWriter writer;
    bridge.save(writer);
    bridge.set_intx(0, false);
    bridge.reset();
    StateReader reader(writer.bytes());
    ASSERT_TRUE(bridge.load(reader).ok());
    EXPECT_TRUE(irqs[10].level());
}

namespace {
struct NoPower final : PowerControl {
    void power_off() override {}
};
struct PowerFunction : testing::Test {
    test::FakeClock clock;
    TimerQueue timers{clock};
    test::FakeIrqLine sci;
    NoPower power;
    Log log{"test"};
    AcpiPm acpi{{sci, timers, power, log}};
    AddressSpace io{"I/O", 0xffff};
    Piix4Pm pm{{io, acpi}};
};
} // namespace

TEST_F(PowerFunction, is_8086_7113_and_decodes_nothing_after_reset) {
    EXPECT_EQ(pm.function().read(0, 4), 0x71138086u);
    EXPECT_EQ(io.read(0x600, 4), 0xffffffffu);
}

TEST_F(PowerFunction, its_blocks_lie_where_they_are_programmed) {
    pm.assign(0x600, 0x700);
    EXPECT_EQ(pm.function().read(pci_reg::interrupt_line, 1), 9u);
    EXPECT_EQ(pm.function().read(0x40, 4), 0x601u);
    clock.set(nanoseconds_per_second);
    EXPECT_EQ(io.read(0x608, 4), 3579545u);
    pm.function().write(0x40, 4, 0xb000);
    EXPECT_EQ(io.read(0x608, 4), 0xffffffffu);
    EXPECT_EQ(io.read(0xb008, 4), 3579545u);
    pm.function().write(0x80, 1, 0);
    EXPECT_EQ(io.read(0xb008, 4), 0xffffffffu);
    pm.reset();
    EXPECT_EQ(io.read(0x700, 1), 0xffu);
}

TEST_F(PowerFunction, an_smbus_transaction_ends_unacknowledged) {
    pm.assign(0x600, 0x700);
    io.write(0x704, 1, 0xa1);
    io.write(0x702, 1, 0x48);
    EXPECT_EQ(io.read(0x700, 1), 0x04u);
    io.write(0x700, 1, 0x1e);
    EXPECT_EQ(io.read(0x700, 1), 0u);
}

TEST_F(PowerFunction, apmc_en_says_whether_the_apm_port_raises_smis) {
    EXPECT_FALSE(pm.apm_raises_smi());
    pm.function().write(0x58, 4, 1u << 25);
    EXPECT_TRUE(pm.apm_raises_smi());
    pm.reset();
    EXPECT_FALSE(pm.apm_raises_smi());
}

TEST_F(PowerFunction, a_loaded_state_decodes_again) {
    pm.assign(0x600, 0x700);
    StateWriter writer;
    pm.save(writer);
    pm.reset();
    StateReader reader(writer.bytes());
    ASSERT_TRUE(pm.load(reader).ok());
    EXPECT_EQ(io.read(0x600, 2), 0u);
    EXPECT_EQ(io.read(0x700, 1), 0u);
}
