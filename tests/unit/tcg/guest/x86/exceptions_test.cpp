// Delivery of exceptions and interrupts on fakes: frames, stacks, gates, double and triple faults (SDM vol. 3 ch. 6).
#include "system_machine.h"

#include <gtest/gtest.h>

namespace {

using namespace vmm::x86;
using vmm::tcg::x86::deliver_interrupt;
using vmm::test::SystemMachine;
constexpr std::uint8_t interrupt_gate = 0x8e, trap_gate = 0x8f, user_gate = 0xee;

TEST(Exceptions, real_mode_uses_the_vector_table_and_pushes_three_words) {
    SystemMachine m;
    m.state().idtr = {0, 0x3ff};
    m.state().seg[cs] = {.base = 0x1230, .limit = 0xffff, .attributes = 0x9b, .selector = 0x123};
    m.state().seg[ss] = {.base = 0x8000, .limit = 0xffff, .attributes = 0x93, .selector = 0x800};
    m.state().gpr[rsp] = 0x100;
    m.state().rip = 0x55;
    m.state().rflags = 0x302;
    m.enter_real();
    m.put(6 * 4, std::uint32_t(0x20000010));
    m.fault(vec::ud);
    EXPECT_EQ(m.state().seg[cs].base, 0x20000u);
    EXPECT_EQ(m.state().rip, 0x10u);
    EXPECT_EQ(m.state().gpr[rsp], 0xfau);
    EXPECT_EQ(m.get<std::uint16_t>(0x80fa), 0x55);
    EXPECT_EQ(m.get<std::uint16_t>(0x80fc), 0x123);
    EXPECT_EQ(m.get<std::uint16_t>(0x80fe) & 0x300, 0x300);
    EXPECT_EQ(m.state().rflags & (flag::if_ | flag::tf), 0u);
}

TEST(Exceptions, a_fault_at_the_same_privilege_pushes_flags_cs_eip_and_its_error_code) {
    SystemMachine m;
    m.enter_protected();
    m.state().rflags |= flag::if_;
    m.put_gate(vec::gp, m.kernel_code, 0x1234, interrupt_gate);
    m.fault(vec::gp, 0x50);
    EXPECT_EQ(m.state().rip, 0x1234u);
    EXPECT_EQ(m.state().gpr[rsp], m.stack_top - 16);
    EXPECT_EQ(m.stack32(0), 0x50u);
    EXPECT_EQ(m.stack32(1), m.code);
    EXPECT_EQ(m.stack32(2), m.kernel_code);
    EXPECT_EQ(m.stack32(3) & (flag::rf | flag::if_), flag::rf | flag::if_) << "a fault resumes past breakpoints";
    EXPECT_FALSE(m.state().rflags & flag::if_);
}

TEST(Exceptions, a_trap_gate_leaves_interrupts_enabled) {
    SystemMachine m;
    m.enter_protected();
    m.state().rflags |= flag::if_;
    m.put_gate(0x40, m.kernel_code, 0x1234, trap_gate);
    deliver_interrupt(*m.context, 0x40);
    EXPECT_TRUE(m.state().rflags & flag::if_);
}

TEST(Exceptions, from_ring_3_the_stack_of_the_tss_takes_the_old_one_first) {
    SystemMachine m;
    m.enter_protected(3);
    m.put_gate(vec::de, m.kernel_code, 0x1234, interrupt_gate);
    m.fault(vec::de);
    EXPECT_EQ(m.state().cpl(), 0u);
    EXPECT_EQ(m.state().seg[ss].selector, m.kernel_data);
    EXPECT_EQ(m.state().gpr[rsp], m.inner_stack_top - 20);
    EXPECT_EQ(m.stack32(1), m.user_code);
    EXPECT_EQ(m.stack32(3), m.stack_top);
    EXPECT_EQ(m.stack32(4), m.user_data);
}

TEST(Exceptions, a_software_interrupt_through_a_gate_of_lower_privilege_is_a_general_protection_fault) {
    for (bool allowed : {false, true}) {
        SystemMachine m;
        m.enter_protected(3);
        m.put_gate(0x80, m.kernel_code, 0x1000, allowed ? user_gate : interrupt_gate);
        m.put_gate(vec::gp, m.kernel_code, 0x2000, interrupt_gate);
        m.context->record({.vector = 0x80, .software = true, .length = 2});
        vmm::tcg::x86::deliver(*m.context);
        EXPECT_EQ(m.state().rip, allowed ? 0x1000u : 0x2000u);
        if (allowed)
            EXPECT_EQ(m.stack32(0), m.code + 2) << "it returns behind itself";
        else
            EXPECT_EQ(m.stack32(0), 0x80u * 8 + 2) << "the gate, not external";
    }
}

TEST(Exceptions, a_gate_that_is_not_present_is_reported_with_its_index) {
    SystemMachine m;
    m.enter_protected();
    m.put_gate(0x40, m.kernel_code, 0x1000, 0x0e);
    m.put_gate(vec::np, m.kernel_code, 0x2000, interrupt_gate);
    deliver_interrupt(*m.context, 0x40);
    EXPECT_EQ(m.state().rip, 0x2000u);
    EXPECT_EQ(m.stack32(0), 0x40u * 8 + 3) << "in the IDT, external";
}

TEST(Exceptions, two_contributory_faults_make_a_double_fault_and_a_third_shuts_down) {
    SystemMachine m;
    m.enter_protected();
    m.put_gate(vec::df, m.kernel_code, 0x3000, interrupt_gate);
    m.fault(vec::gp, 0); // whose gate is empty: #GP again
    EXPECT_EQ(m.state().rip, 0x3000u);
    EXPECT_EQ(m.stack32(0), 0u);
    EXPECT_EQ(m.state().activity, Activity::running);

    SystemMachine none;
    none.enter_protected();
    none.fault(vec::gp, 0);
    EXPECT_EQ(none.state().activity, Activity::shutdown);
}

TEST(Exceptions, a_benign_exception_and_a_fault_in_its_delivery_are_served_one_after_the_other) {
    SystemMachine m;
    m.enter_protected();
    m.put_gate(vec::gp, m.kernel_code, 0x2000, interrupt_gate);
    m.fault(vec::ud); // its gate is empty
    EXPECT_EQ(m.state().rip, 0x2000u);
    EXPECT_EQ(m.stack32(0), vec::ud * 8u + 2 + 1);
}

TEST(Exceptions, long_mode_aligns_the_stack_and_always_pushes_it) {
    SystemMachine m;
    m.enter_long();
    m.state().gpr[rsp] = m.stack_top - 3;
    m.put_gate64(vec::ud, m.long_code, 0x1234, interrupt_gate);
    m.fault(vec::ud);
    EXPECT_EQ(m.state().rip, 0x1234u);
    EXPECT_EQ(m.state().gpr[rsp], m.stack_top - 16 - 40);
    EXPECT_EQ(m.stack64(0), m.code);
    EXPECT_EQ(m.stack64(3), m.stack_top - 3);
    EXPECT_EQ(m.stack64(4), m.kernel_data);
}

TEST(Exceptions, an_ist_entry_takes_its_stack_at_any_privilege) {
    for (unsigned cpl : {0u, 3u}) {
        SystemMachine m;
        m.enter_long(cpl);
        m.put(m.tss + 36 + 8 * 2, std::uint64_t(0x18000)); // IST3
        m.put_gate64(vec::df, m.long_code, 0x1234, interrupt_gate, 3);
        m.fault(vec::df, 0);
        EXPECT_EQ(m.state().gpr[rsp], 0x18000u - 48);
        EXPECT_EQ(m.state().cpl(), 0u);
        EXPECT_EQ(m.state().seg[ss].selector, cpl ? 0 : m.kernel_data) << "a null stack segment after a change";
    }
}

TEST(Exceptions, a_page_fault_leaves_its_address_in_cr2_only_when_it_is_delivered) {
    SystemMachine m;
    m.enter_long();
    m.put_gate64(vec::pf, m.long_code, 0x1234, interrupt_gate);
    m.context->raise_page_fault(0x123456789, 2);
    EXPECT_EQ(m.state().cr2, 0u);
    vmm::tcg::x86::deliver(*m.context);
    EXPECT_EQ(m.state().cr2, 0x123456789u);
    EXPECT_EQ(m.stack64(0), 2u);
}

} // namespace
