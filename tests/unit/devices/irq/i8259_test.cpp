#include "devices/irq/i8259.h"
#include "tests/support/fake_irq_line.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
struct Pic : testing::Test {
    FakeIrqLine intr;
    Log log{"test"};
    dev::I8259Pair pic{{intr, log}};
    IoHandler& master = pic.master_ports();
    IoHandler& slave = pic.slave_ports();

    void init(std::uint8_t icw4 = 1) {
        for (auto [chip, vectors, icw3] : {std::tuple{&master, 0x30, 4}, {&slave, 0x38, 2}}) {
            chip->write(0, 1, 0x11), chip->write(1, 1, vectors), chip->write(1, 1, icw3), chip->write(1, 1, icw4);
            chip->write(1, 1, 0);
        }
    }
    void SetUp() override { init(); }
    void raise(unsigned irq) { pic.input(irq).set(true); }
    void lower(unsigned irq) { pic.input(irq).set(false); }
    std::uint64_t isr(IoHandler& chip) { return chip.write(0, 1, 0x0b), chip.read(0, 1); }
    std::uint64_t irr(IoHandler& chip) { return chip.write(0, 1, 0x0a), chip.read(0, 1); }
    void eoi(IoHandler& chip) { chip.write(0, 1, 0x20); }
};
} // namespace

TEST_F(Pic, an_edge_interrupts_once_until_the_line_falls_and_rises) {
    raise(4);
    EXPECT_TRUE(intr.level());
    EXPECT_EQ(pic.acknowledge(), 0x34);
    EXPECT_FALSE(intr.level());
    eoi(master);
    EXPECT_FALSE(intr.level());
    lower(4), raise(4);
    EXPECT_TRUE(intr.level());
}

TEST_F(Pic, a_level_interrupts_again_after_eoi_while_it_is_held) {
    pic.elcr_ports().write(1, 1, 0x08); // IRQ 11
    raise(11);
    EXPECT_EQ(pic.acknowledge(), 0x3b);
    eoi(slave), eoi(master);
    EXPECT_TRUE(intr.level());
    EXPECT_EQ(pic.acknowledge(), 0x3b);
    lower(11);
    eoi(slave), eoi(master);
    EXPECT_FALSE(intr.level());
}

TEST_F(Pic, the_elcr_keeps_the_system_interrupts_edge_triggered) {
    pic.elcr_ports().write(0, 1, 0xff), pic.elcr_ports().write(1, 1, 0xff);
    EXPECT_EQ(pic.elcr_ports().read(0, 1), 0xf8u);
    EXPECT_EQ(pic.elcr_ports().read(1, 1), 0xdeu);
}

TEST_F(Pic, a_lower_number_goes_first_and_interrupts_a_higher_one) {
    raise(6), raise(3);
    EXPECT_EQ(pic.acknowledge(), 0x33);
    EXPECT_FALSE(intr.level()); // 6 waits for 3
    raise(1);
    EXPECT_EQ(pic.acknowledge(), 0x31); // 1 does not
    EXPECT_EQ(isr(master), 0x0au);
    eoi(master), eoi(master);
    EXPECT_EQ(pic.acknowledge(), 0x36);
}

TEST_F(Pic, slave_interrupts_rank_as_input_2) {
    raise(3), raise(8);
    EXPECT_EQ(pic.acknowledge(), 0x38);
    EXPECT_EQ(isr(master), 0x04u);
    EXPECT_EQ(isr(slave), 0x01u);
    EXPECT_FALSE(intr.level());
    eoi(slave), eoi(master);
    EXPECT_EQ(pic.acknowledge(), 0x33);
}

TEST_F(Pic, a_request_withdrawn_before_inta_gives_spurious_irq_7_without_an_isr_bit) {
    pic.elcr_ports().write(0, 1, 0x20);
    raise(5);
    ASSERT_TRUE(intr.level());
    lower(5);
    EXPECT_EQ(pic.acknowledge(), 0x37);
    EXPECT_EQ(isr(master), 0u);
}

TEST_F(Pic, a_slave_request_withdrawn_gives_spurious_irq_15_and_the_master_needs_an_eoi) {
    raise(10);
    slave.write(1, 1, 0xff);
    // The cascade edge is latched in the master, as on the chip.
    EXPECT_EQ(pic.acknowledge(), 0x3f);
    EXPECT_EQ(isr(slave), 0u);
    EXPECT_EQ(isr(master), 0x04u);
}

TEST_F(Pic, firmware_leaves_it_with_a_pcs_vectors_masks_and_pci_levels) {
    pic.set_up_as_firmware(1u << 10 | 1u << 11);
    EXPECT_EQ(pic.master_ports().read(1, 1), 0xb8u);
    EXPECT_EQ(pic.slave_ports().read(1, 1), 0x8eu);
    EXPECT_EQ(pic.elcr_ports().read(1, 1), 0x0cu);
    pic.input(0).set(true);
    EXPECT_EQ(pic.acknowledge(), 0x08);
    pic.master_ports().write(0, 1, 0x20);
    pic.input(8).set(true);
    EXPECT_EQ(pic.acknowledge(), 0x70);
}

TEST_F(Pic, masked_edges_wait) {
    master.write(1, 1, 0x10);
    raise(4), lower(4);
    EXPECT_FALSE(intr.level());
    EXPECT_EQ(irr(master), 0x10u);
    master.write(1, 1, 0);
    EXPECT_EQ(pic.acknowledge(), 0x34);
}

TEST_F(Pic, auto_eoi_leaves_nothing_in_service) {
    init(3);
    raise(4);
    EXPECT_EQ(pic.acknowledge(), 0x34);
    EXPECT_EQ(isr(master), 0u);
    raise(6);
    EXPECT_EQ(pic.acknowledge(), 0x36);
}

TEST_F(Pic, two_slave_interrupts_at_once_both_arrive_in_auto_eoi_mode) {
    init(3);
    raise(9), raise(12);
    EXPECT_EQ(pic.acknowledge(), 0x39);
    EXPECT_TRUE(intr.level());
    EXPECT_EQ(pic.acknowledge(), 0x3c);
    EXPECT_FALSE(intr.level());
}

TEST_F(Pic, rotating_eoi_makes_the_served_input_the_last) {
    raise(3);
    EXPECT_EQ(pic.acknowledge(), 0x33);
    master.write(0, 1, 0xa0);
    lower(3), raise(3), raise(5);
    EXPECT_EQ(pic.acknowledge(), 0x35);
}

TEST_F(Pic, set_priority_chooses_the_lowest_input) {
    master.write(0, 1, 0xc4); // 4 is the lowest, 5 the highest
    raise(0), raise(5);
    EXPECT_EQ(pic.acknowledge(), 0x35);
}

TEST_F(Pic, rotation_in_auto_eoi_mode) {
    init(3);
    master.write(0, 1, 0x80);
    raise(1);
    EXPECT_EQ(pic.acknowledge(), 0x31);
    lower(1), raise(1), raise(7);
    EXPECT_EQ(pic.acknowledge(), 0x37);
}

TEST_F(Pic, special_mask_mode_lets_lower_priorities_in_while_one_is_in_service) {
    raise(1);
    EXPECT_EQ(pic.acknowledge(), 0x31);
    raise(6);
    EXPECT_FALSE(intr.level());
    master.write(1, 1, 0x02); // mask the one in service
    master.write(0, 1, 0x68); // set special mask
    EXPECT_EQ(pic.acknowledge(), 0x36);
    eoi(master); // reaches 6, not the masked 1
    EXPECT_EQ(isr(master), 0x02u);
    master.write(0, 1, 0x61); // a specific EOI reaches 1
    EXPECT_EQ(isr(master), 0u);
}

TEST_F(Pic, special_fully_nested_mode_lets_the_slave_interrupt_itself) {
    init(0x11);
    raise(12);
    EXPECT_EQ(pic.acknowledge(), 0x3c);
    raise(9);
    EXPECT_TRUE(intr.level());
    EXPECT_EQ(pic.acknowledge(), 0x39);
}

TEST_F(Pic, polling_acknowledges) {
    raise(4);
    master.write(0, 1, 0x0c);
    EXPECT_EQ(master.read(0, 1), 0x84u);
    EXPECT_FALSE(intr.level());
    EXPECT_EQ(isr(master), 0x10u);
    master.write(0, 1, 0x0c);
    EXPECT_EQ(master.read(0, 1) & 0x80, 0u);
}

TEST_F(Pic, the_mask_register_reads_back_and_icw1_clears_it) {
    master.write(1, 1, 0xa5);
    EXPECT_EQ(master.read(1, 1), 0xa5u);
    master.write(0, 1, 0x11);
    EXPECT_EQ(master.read(1, 1), 0u);
}

TEST_F(Pic, icw1_forgets_edges_that_were_latched) {
    master.write(1, 1, 0xff);
    raise(4);
    init();
    EXPECT_FALSE(intr.level());
    lower(4), raise(4);
    EXPECT_TRUE(intr.level());
}

TEST_F(Pic, a_chip_that_expects_initialisation_words_requests_nothing) {
    master.write(0, 1, 0x11);
    raise(4);
    EXPECT_FALSE(intr.level());
}
