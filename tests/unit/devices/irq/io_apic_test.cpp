#include "tests/support/apic_rig.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
constexpr std::uint64_t level = 1 << 15, masked = 1 << 16, remote_irr = 1 << 14, logical = 1 << 11;
struct IoApicTest : testing::Test, ApicRig {
    IoApicTest() : ApicRig({0, 1}) { enable_all(); }
    int take(unsigned cpu = 0) { return apic(cpu).interrupt_pending() ? apic(cpu).acknowledge() : -1; }
    void eoi(unsigned cpu = 0) { apic(cpu).write(0xb0, 4, 0); }
};
} // namespace

TEST_F(IoApicTest, has_24_masked_pins_and_version_0x20_after_reset) {
    io.write(0, 4, 1);
    EXPECT_EQ(io.read(0x10, 4), 0x170020u);
    for (unsigned pin = 0; pin < 24; ++pin) EXPECT_EQ(redirection(pin), masked);
}

TEST_F(IoApicTest, an_edge_is_delivered_once_to_its_physical_destination) {
    redirect(4, 1ull << 56 | 0x41);
    io.input(4).set(true);
    EXPECT_EQ(take(0), -1);
    EXPECT_EQ(take(1), 0x41);
    eoi(1);
    EXPECT_EQ(take(1), -1);
    io.input(4).pulse();
    EXPECT_EQ(take(1), -1) << "the line was high already: no edge";
    io.input(4).pulse();
    EXPECT_EQ(take(1), 0x41);
}

TEST_F(IoApicTest, a_level_waits_for_eoi_and_comes_again_while_held) {
    redirect(11, 0x51 | level);
    io.input(11).set(true);
    EXPECT_EQ(redirection(11) & remote_irr, remote_irr);
    EXPECT_EQ(take(), 0x51);
    EXPECT_EQ(take(), -1);
    eoi();
    EXPECT_EQ(take(), 0x51);
    io.input(11).set(false);
    eoi();
    EXPECT_EQ(take(), -1);
    EXPECT_EQ(redirection(11) & remote_irr, 0u);
}

TEST_F(IoApicTest, a_masked_level_comes_when_unmasked_but_a_masked_edge_is_lost) {
    redirect(11, 0x51 | level | masked);
    redirect(4, 0x41 | masked);
    io.input(11).set(true), io.input(4).set(true);
    EXPECT_EQ(take(), -1);
    redirect(11, 0x51 | level), redirect(4, 0x41);
    EXPECT_EQ(take(), 0x51);
    eoi();
    io.input(11).set(false), io.input(4).set(false);
    EXPECT_EQ(take(), 0x51);
    eoi();
    EXPECT_EQ(take(), -1);
}

TEST_F(IoApicTest, the_eoi_register_ends_a_level_interrupt_by_vector) {
    redirect(11, 0x51 | level);
    io.input(11).set(true);
    io.input(11).set(false);
    io.write(0x40, 4, 0x51);
    EXPECT_EQ(redirection(11) & remote_irr, 0u);
}

TEST_F(IoApicTest, turning_an_entry_to_edge_and_back_frees_a_stuck_one) {
    redirect(11, 0x51 | level);
    io.input(11).set(true), io.input(11).set(false);
    redirect(11, 0x51 | masked), redirect(11, 0x51 | level);
    EXPECT_EQ(redirection(11) & remote_irr, 0u);
}

TEST_F(IoApicTest, read_only_bits_are_not_written) {
    redirect(3, ~0ull & ~0x0700ull);
    EXPECT_EQ(redirection(3), 0xff000000'0001a8ffull);
}

TEST_F(IoApicTest, lowest_priority_goes_to_the_cpu_that_does_the_least) {
    for (unsigned i = 0; i < 2; ++i) apic(i).write(0xd0, 4, 0x01000000u << i);
    redirect(4, 0x03ull << 56 | logical | 1 << 8 | 0x41);
    apic(0).set_tpr(0x30);
    io.input(4).pulse();
    EXPECT_EQ(take(1), 0x41);
    eoi(1);
    apic(0).set_tpr(0), apic(1).set_tpr(0x20);
    io.input(4).pulse();
    EXPECT_EQ(take(0), 0x41);
}

TEST_F(IoApicTest, nmi_and_ext_int_entries_reach_the_cpu) {
    redirect(2, 0x400);
    io.input(2).pulse();
    EXPECT_EQ(cpus[0]->nmis, 1u);
    init_pic();
    apic().write(0x350, 4, 0x10000); // LINT0 masked: only through the I/O APIC
    pic.input(0).set(true);
    EXPECT_FALSE(apic().interrupt_pending());
    redirect(0, 0x700);
    io.input(0).pulse();
    EXPECT_EQ(take(), 0x30);
    EXPECT_FALSE(apic().interrupt_pending());
}

TEST_F(IoApicTest, msi_carries_vector_destination_and_mode) {
    bus.deliver_msi(0xfee01000, 0x4061);
    EXPECT_EQ(take(1), 0x61);
    eoi(1);
    bus.deliver_msi(0xfeeff000, 0x62);
    EXPECT_EQ(take(0), 0x62);
    EXPECT_EQ(take(1), 0x62);
    bus.deliver_msi(0xfed00000, 0x63); // outside the window
    EXPECT_EQ(take(0), -1);
}

// Linux's check_timer(): tries the timer through the I/O APIC, then through the PIC's virtual wire, then as ExtINT.
TEST_F(IoApicTest, every_route_of_the_timer_that_check_timer_tries_works) {
    init_pic();
    pic.master_ports().write(1, 1, 0xfe);
    auto timer_tick = [&] {
        pic.input(0).pulse();
        io.input(2).pulse();
    };
    apic().write(0x350, 4, 0x10700);
    redirect(2, 0x31);
    timer_tick();
    EXPECT_EQ(take(), 0x31);
    eoi();
    redirect(2, masked);
    apic().write(0x350, 4, 0x00031);    // LVT0 fixed: virtual wire
    EXPECT_EQ(pic.acknowledge(), 0x30); // drain the tick the PIC still holds
    pic.master_ports().write(0, 1, 0x20);
    timer_tick();
    EXPECT_EQ(take(), 0x31);
    eoi();
    pic.acknowledge(), pic.master_ports().write(0, 1, 0x20);
    apic().write(0x350, 4, 0x00700); // ExtINT
    timer_tick();
    EXPECT_EQ(take(), 0x30);
}
