#include "tests/support/apic_rig.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
constexpr std::uint64_t base_x2 = 0xfee00c00;
struct Apic : testing::Test, ApicRig {
    Apic() : ApicRig({0, 1, 2, 3}) { enable_all(); }
    void ipi(unsigned from, std::uint32_t high, std::uint32_t low) {
        apic(from).write(0x310, 4, high);
        apic(from).write(0x300, 4, low);
    }
    int take(unsigned cpu = 0) { return apic(cpu).interrupt_pending() ? apic(cpu).acknowledge() : -1; }
    void eoi(unsigned cpu = 0) { apic(cpu).write(0xb0, 4, 0); }
    std::uint64_t esr() { return apic().write(0x280, 4, 0), apic().read(0x280, 4); }
    void to_x2apic() {
        for (auto& a : apics) {
            std::uint64_t base = a->read_msr(0x1b).value();
            ASSERT_TRUE(a->write_msr(0x1b, base | 0x400));
        }
    }
    // Which CPUs got `vector`.
    std::string receivers(int vector) {
        std::string who;
        for (unsigned i = 0; i < apics.size(); ++i) {
            if (take(i) != vector) continue;
            who += char('0' + i);
            if (apic(i).mmio_enabled())
                eoi(i);
            else
                EXPECT_TRUE(apic(i).write_msr(0x80b, 0));
        }
        return who;
    }
};
} // namespace

TEST_F(Apic, identifies_itself_after_reset) {
    apic(2).reset();
    EXPECT_EQ(apic(2).read(0x20, 4), 0x02000000u);
    EXPECT_EQ(apic(2).read(0x30, 4), 0x00050014u);
    EXPECT_EQ(apic(2).read(0xf0, 4), 0xffu);
    EXPECT_EQ(apic(2).read(0x320, 4), 0x10000u);
    EXPECT_EQ(apic(2).read_msr(0x1b), 0xfee00800u);
    EXPECT_EQ(apic(0).read_msr(0x1b), 0xfee00900u);
}

TEST_F(Apic, higher_classes_preempt_lower_ones_and_equal_classes_wait) {
    apic().receive({.vector = 0x45});
    EXPECT_EQ(take(), 0x45);
    apic().receive({.vector = 0x4f});
    EXPECT_EQ(take(), -1) << "the same class";
    apic().receive({.vector = 0x51});
    EXPECT_EQ(take(), 0x51);
    eoi();
    EXPECT_EQ(take(), -1);
    eoi();
    EXPECT_EQ(take(), 0x4f);
}

TEST_F(Apic, the_task_priority_holds_interrupts_back_and_cr8_is_its_upper_half) {
    apic().set_cr8(5);
    EXPECT_EQ(apic().read(0x80, 4), 0x50u);
    apic().receive({.vector = 0x5f});
    EXPECT_FALSE(apic().interrupt_pending());
    EXPECT_EQ(cpus[0]->kicks, 0u);
    apic().set_cr8(4);
    EXPECT_TRUE(apic().interrupt_pending());
    EXPECT_EQ(cpus[0]->kicks, 1u);
    apic().set_cr8(6);
    EXPECT_EQ(apic().acknowledge(), -1) << "raised between the look and the acknowledge";
}

TEST_F(Apic, the_processor_priority_is_the_greater_of_task_and_service) {
    apic().set_tpr(0x2b);
    EXPECT_EQ(apic().read(0xa0, 4), 0x2bu);
    apic().receive({.vector = 0x61});
    take();
    EXPECT_EQ(apic().read(0xa0, 4), 0x60u);
}

TEST_F(Apic, a_software_disabled_apic_takes_no_vectors_but_nmi_init_and_sipi) {
    apic(1).write(0xf0, 4, 0xff);
    EXPECT_EQ(apic(1).read(0x370, 4), 0x10000u);
    ipi(0, 1 << 24, 0x41);
    EXPECT_FALSE(apic(1).interrupt_pending());
    ipi(0, 1 << 24, 0x400);
    ipi(0, 1 << 24, 0x500);
    ipi(0, 1 << 24, 0x608);
    EXPECT_EQ(cpus[1]->nmis, 1u);
    EXPECT_EQ(cpus[1]->inits, 1u);
    EXPECT_EQ(cpus[1]->sipis, std::vector<std::uint8_t>{8});
}

TEST_F(Apic, init_deassert_and_the_smp_start_sequence) {
    ipi(0, 1 << 24, 0xc500); // assert
    ipi(0, 1 << 24, 0x8500); // de-assert: nothing
    EXPECT_EQ(cpus[1]->inits, 1u);
    EXPECT_EQ(apic(1).read(0xf0, 4), 0xffu) << "INIT resets the local APIC";
    EXPECT_EQ(apic(1).read(0x20, 4), 0x01000000u);
}

TEST_F(Apic, shorthands_reach_self_all_and_others) {
    ipi(2, 0, 0x40041);
    EXPECT_EQ(receivers(0x41), "2");
    ipi(2, 0, 0x80041);
    EXPECT_EQ(receivers(0x41), "0123");
    ipi(2, 0, 0xc0041);
    EXPECT_EQ(receivers(0x41), "013");
}

TEST_F(Apic, physical_destinations_and_broadcast) {
    ipi(0, 3u << 24, 0x41);
    EXPECT_EQ(receivers(0x41), "3");
    ipi(0, 0xffu << 24, 0x41);
    EXPECT_EQ(receivers(0x41), "0123");
    ipi(0, 9u << 24, 0x41);
    EXPECT_EQ(receivers(0x41), "");
}

TEST_F(Apic, logical_destinations_in_the_flat_model) {
    for (unsigned i = 0; i < 4; ++i) apic(i).write(0xd0, 4, 0x01000000u << i);
    ipi(0, 0x0au << 24, 0x841);
    EXPECT_EQ(receivers(0x41), "13");
}

TEST_F(Apic, logical_destinations_in_the_cluster_model) {
    std::uint32_t const ldr[] = {0x11, 0x12, 0x21, 0x22};
    for (unsigned i = 0; i < 4; ++i) apic(i).write(0xe0, 4, 0x0fffffff), apic(i).write(0xd0, 4, ldr[i] << 24);
    ipi(0, 0x13u << 24, 0x841);
    EXPECT_EQ(receivers(0x41), "01");
    ipi(0, 0xf2u << 24, 0x841);
    EXPECT_EQ(receivers(0x41), "13");
}

TEST_F(Apic, x2apic_addresses_by_32_bits_and_derives_the_logical_id) {
    to_x2apic();
    EXPECT_EQ(apic(3).read_msr(0x802), 3u);
    EXPECT_EQ(apic(3).read_msr(0x80d), 8u);
    ASSERT_TRUE(apic(0).write_msr(0x830, 2ull << 32 | 0x41));
    EXPECT_EQ(receivers(0x41), "2");
    ASSERT_TRUE(apic(0).write_msr(0x830, 0xaull << 32 | 0x841));
    EXPECT_EQ(receivers(0x41), "13");
    ASSERT_TRUE(apic(0).write_msr(0x830, 0xffffffffull << 32 | 0x41));
    EXPECT_EQ(receivers(0x41), "0123");
    ASSERT_TRUE(apic(0).write_msr(0x830, 0xffull << 32 | 0x41));
    EXPECT_EQ(receivers(0x41), "") << "0xff is an ordinary ID here";
    ASSERT_TRUE(apic(0).write_msr(0x83f, 0x42));
    EXPECT_EQ(receivers(0x42), "0");
}

TEST_F(Apic, x2apic_of_a_high_id) {
    ApicRig rig({0x123});
    ASSERT_TRUE(rig.apic().write_msr(0x1b, base_x2));
    EXPECT_EQ(rig.apic().read_msr(0x802), 0x123u);
    EXPECT_EQ(rig.apic().read_msr(0x80d), 0x00120008u);
}

TEST_F(Apic, x2apic_registers_fault_where_the_manual_says) {
    EXPECT_FALSE(apic().read_msr(0x802)) << "not in x2APIC mode";
    to_x2apic();
    EXPECT_FALSE(apic().mmio_enabled());
    EXPECT_EQ(apic().read(0x30, 4), 0xffffffffu);
    for (std::uint32_t absent : {0x80b, 0x80e, 0x809, 0x831, 0x83f, 0x840, 0x8ff})
        EXPECT_FALSE(apic().read_msr(absent)) << std::hex << absent;
    for (std::uint32_t read_only : {0x802, 0x803, 0x80a, 0x80d, 0x810, 0x820, 0x839, 0x831})
        EXPECT_FALSE(apic().write_msr(read_only, 0)) << std::hex << read_only;
    EXPECT_FALSE(apic().write_msr(0x80b, 1));
    EXPECT_FALSE(apic().write_msr(0x808, 0x100));
    EXPECT_FALSE(apic().write_msr(0x828, 1));
    EXPECT_FALSE(apic().write_msr(0x830, 1 << 13));
    EXPECT_FALSE(apic().write_msr(0x80f, 1ull << 32));
    EXPECT_TRUE(apic().write_msr(0x808, 0x20));
    EXPECT_EQ(apic().cr8(), 2);
}

TEST_F(Apic, apic_base_refuses_the_transitions_the_manual_forbids) {
    dev::LocalApic& a = apic(1);
    EXPECT_FALSE(a.write_msr(0x1b, 0xfee00400)) << "x2APIC without enable";
    EXPECT_TRUE(a.write_msr(0x1b, base_x2));
    EXPECT_FALSE(a.write_msr(0x1b, 0xfee00800)) << "x2APIC to xAPIC";
    EXPECT_TRUE(a.write_msr(0x1b, 0xfee00000));
    EXPECT_FALSE(a.write_msr(0x1b, base_x2)) << "disabled to x2APIC";
    EXPECT_TRUE(a.write_msr(0x1b, 0xfee00800));
    EXPECT_EQ(a.read(0xf0, 4), 0xffu) << "disabling reset it";
    EXPECT_FALSE(a.write_msr(0x1b, 0xfee00801)) << "reserved bit";
    EXPECT_FALSE(a.write_msr(0x1b, 1ull << 40 | 0xfee00800)) << "beyond the physical address width";
    EXPECT_TRUE(a.write_msr(0x1b, 0xd0000800));
    EXPECT_EQ(a.mmio_base(), 0xd0000000u);
}

TEST_F(Apic, a_disabled_apic_passes_the_pic_and_nmi_wires_through) {
    init_pic();
    EXPECT_TRUE(apic(1).write_msr(0x1b, 0xfee00000));
    pic.input(4).set(true);
    EXPECT_TRUE(apic(1).interrupt_pending());
    EXPECT_EQ(apic(1).acknowledge(), 0x34);
    bus.lint(1).pulse();
    EXPECT_EQ(cpus[1]->nmis, 1u);
    EXPECT_EQ(cpus[0]->nmis, 0u) << "LINT1 is masked after reset";
}

TEST_F(Apic, the_bootstrap_cpu_takes_pic_interrupts_right_after_reset_and_others_do_not) {
    for (auto& a : apics) a->reset();
    init_pic();
    pic.input(4).set(true);
    EXPECT_TRUE(apic(0).interrupt_pending());
    EXPECT_FALSE(apic(1).interrupt_pending());
    EXPECT_EQ(apic(0).acknowledge(), 0x34);
    EXPECT_FALSE(apic(0).interrupt_pending());
}

TEST_F(Apic, the_virtual_wire_delivers_pic_interrupts_and_nmi) {
    apic(0).set_up_virtual_wire();
    EXPECT_EQ(apic(0).read(0x350, 4), 0x8700u);
    init_pic();
    pic.input(1).set(true);
    EXPECT_EQ(take(0), 0x31);
    bus.lint(1).pulse();
    EXPECT_EQ(cpus[0]->nmis, 1u);
}

TEST_F(Apic, illegal_vectors_and_registers_are_reported_in_esr) {
    ipi(0, 1 << 24, 0x05);
    EXPECT_EQ(esr(), 0x20u);
    bus.deliver_msi(0xfee00000, 0x0f);
    EXPECT_EQ(esr(), 0x40u);
    apic().read(0x40, 4);
    EXPECT_EQ(esr(), 0x80u);
    EXPECT_EQ(esr(), 0u);
}

TEST_F(Apic, errors_raise_the_error_interrupt_once_until_esr_is_written) {
    apic().write(0x370, 4, 0xfe);
    ipi(0, 0, 0x40003);
    EXPECT_EQ(take(), 0xfe);
    eoi();
    ipi(0, 0, 0x40003);
    EXPECT_EQ(take(), -1);
    esr();
    ipi(0, 0, 0x40003);
    EXPECT_EQ(take(), 0xfe);
}

TEST_F(Apic, an_error_interrupt_with_an_illegal_vector_does_not_feed_itself) {
    apic().write(0x370, 4, 0x03);
    apic().read(0x40, 4);
    EXPECT_EQ(esr(), 0xc0u);
}

TEST_F(Apic, an_eoi_with_nothing_in_service_does_nothing) {
    eoi();
    EXPECT_EQ(take(), -1);
}

TEST_F(Apic, level_triggered_lint0_with_fixed_mode_uses_remote_irr) {
    apic().write(0x350, 4, 0x8041);
    bus.lint(0).set(true);
    EXPECT_EQ(apic().read(0x350, 4), 0xc041u);
    EXPECT_EQ(take(), 0x41);
    eoi();
    EXPECT_EQ(take(), 0x41);
    bus.lint(0).set(false);
    eoi();
    EXPECT_EQ(take(), -1);
}

TEST_F(Apic, thermal_and_performance_entries_deliver_when_unmasked) {
    apic().deliver_local(dev::LocalApic::performance);
    EXPECT_EQ(cpus[0]->nmis, 0u);
    apic().write(0x340, 4, 0x400);
    apic().deliver_local(dev::LocalApic::performance);
    EXPECT_EQ(cpus[0]->nmis, 1u);
}
