// Segment registers, far transfers and task switches on fakes: rights, frames, busy and accessed bits (SDM vol. 3 ch.
// 5, 7).
#include "system_machine.h"
#include "vmm/tcg/guest/x86/task.h"

#include <gtest/gtest.h>

namespace {

using namespace vmm::x86;
using vmm::test::SystemMachine;
namespace helper = vmm::tcg::x86::helper;

int load(SystemMachine& m, Seg which, std::uint16_t selector) {
    helper::load_segment(*m.context, which, selector, 0);
    return m.take_fault();
}
int far_call(SystemMachine& m, std::uint16_t selector, std::uint32_t offset) {
    helper::far_call(*m.context, selector, offset, 4);
    return m.take_fault();
}
int far_jump(SystemMachine& m, std::uint16_t selector, std::uint32_t offset) {
    helper::far_jump(*m.context, selector, offset, 4);
    return m.take_fault();
}
int far_return(SystemMachine& m, unsigned release = 0) {
    helper::far_return(*m.context, 4, release, 0);
    return m.take_fault();
}

TEST(Segments, a_load_takes_the_descriptor_and_marks_it_accessed) {
    SystemMachine m;
    m.enter_protected();
    m.put_descriptor(m.free_slot, m.descriptor(0x12340, 0x1ff, 0x92, 4));
    EXPECT_EQ(load(m, ds, m.free_slot), -1);
    EXPECT_EQ(m.state().seg[ds].base, 0x12340u);
    EXPECT_EQ(m.state().seg[ds].limit, 0x1ffu);
    EXPECT_EQ(m.get<std::uint8_t>(m.gdt + m.free_slot + 5), 0x93);
}

TEST(Segments, a_stack_segment_must_be_writable_present_and_of_the_very_privilege) {
    SystemMachine m;
    m.enter_protected();
    EXPECT_EQ(load(m, ss, 0), vec::gp);
    EXPECT_EQ(m.last_error, 0u);
    EXPECT_EQ(load(m, ss, m.kernel_code), vec::gp);
    EXPECT_EQ(m.last_error, m.kernel_code);
    EXPECT_EQ(load(m, ss, m.user_data), vec::gp) << "DPL 3 in ring 0";
    m.put_descriptor(m.free_slot, m.descriptor(0, 0xfffff, 0x12, 0xc));
    EXPECT_EQ(load(m, ss, m.free_slot), vec::ss) << "not present";
    EXPECT_EQ(load(m, ds, m.free_slot), vec::np);
    EXPECT_EQ(load(m, ss, 0x100), vec::gp) << "beyond the table";
    EXPECT_EQ(m.last_error, 0x100u);
    EXPECT_EQ(m.state().seg[ss].selector, m.kernel_data);
}

TEST(Segments, ring_3_may_not_have_the_kernels_data_but_may_have_none) {
    SystemMachine m;
    m.enter_protected(3);
    EXPECT_EQ(load(m, ds, m.kernel_data), vec::gp);
    EXPECT_EQ(load(m, ds, 0), -1);
    EXPECT_TRUE(m.state().seg[ds].unusable());
    EXPECT_EQ(load(m, ds, m.user_data), -1);
}

TEST(FarTransfers, a_direct_call_pushes_cs_and_eip_and_a_return_takes_them) {
    SystemMachine m;
    m.enter_protected();
    EXPECT_EQ(far_call(m, m.kernel_code, 0x1000), -1);
    EXPECT_EQ(m.state().rip, 0x1000u);
    EXPECT_EQ(m.stack32(0), m.code);
    EXPECT_EQ(m.stack32(1), m.kernel_code);
    EXPECT_EQ(far_return(m, 8), -1);
    EXPECT_EQ(m.state().rip, m.code);
    EXPECT_EQ(m.state().gpr[rsp], m.stack_top + 8) << "parameters are released";
}

TEST(FarTransfers, without_a_gate_the_privilege_stays_unless_the_segment_conforms) {
    SystemMachine m;
    m.enter_protected(3);
    EXPECT_EQ(far_jump(m, m.kernel_code, 0), vec::gp);
    EXPECT_EQ(m.last_error, m.kernel_code);
    m.put_descriptor(m.free_slot, m.descriptor(0, 0xfffff, 0x9e, 0xc)); // conforming, DPL 0
    EXPECT_EQ(far_jump(m, m.free_slot, 0x500), -1);
    EXPECT_EQ(m.state().seg[cs].selector, m.free_slot | 3) << "RPL says the privilege";
    EXPECT_EQ(m.state().cpl(), 3u);
}

TEST(FarTransfers, a_call_gate_to_an_inner_ring_changes_stacks_and_copies_parameters) {
    SystemMachine m;
    m.enter_protected(3);
    m.put_descriptor(m.free_slot, m.gate(m.kernel_code, 0x7000, 0xec, 2));
    m.put(m.stack_top, std::uint32_t(0x11111111));
    m.put(m.stack_top + 4, std::uint32_t(0x22222222));
    EXPECT_EQ(far_call(m, m.free_slot | 3, 0xdead), -1) << "the gate's offset counts";
    EXPECT_EQ(m.state().rip, 0x7000u);
    EXPECT_EQ(m.state().cpl(), 0u);
    EXPECT_EQ(m.state().gpr[rsp], m.inner_stack_top - 24);
    EXPECT_EQ(m.stack32(0), m.code);
    EXPECT_EQ(m.stack32(2), 0x11111111u);
    EXPECT_EQ(m.stack32(3), 0x22222222u);
    EXPECT_EQ(m.stack32(4), m.stack_top);
    EXPECT_EQ(far_return(m, 8), -1);
    EXPECT_EQ(m.state().cpl(), 3u);
    EXPECT_EQ(m.state().gpr[rsp], m.stack_top + 8);
    EXPECT_EQ(m.state().seg[ss].selector, m.user_data);
}

TEST(FarTransfers, a_call_gate_of_lower_privilege_or_absent_is_refused) {
    SystemMachine m;
    m.enter_protected(3);
    m.put_descriptor(m.free_slot, m.gate(m.kernel_code, 0x7000, 0x8c));
    EXPECT_EQ(far_call(m, m.free_slot | 3, 0), vec::gp);
    EXPECT_EQ(m.last_error, m.free_slot);
    m.put_descriptor(m.free_slot, m.gate(m.kernel_code, 0x7000, 0x6c));
    EXPECT_EQ(far_call(m, m.free_slot | 3, 0), vec::np);
}

TEST(FarTransfers, a_return_to_an_outer_ring_drops_data_segments_it_may_not_have) {
    SystemMachine m;
    m.enter_protected();
    m.state().gpr[rsp] = m.stack_top - 16;
    std::uint32_t const frame[] = {0x1234, m.user_code, 0x18000, m.user_data};
    for (unsigned i = 0; i < 4; ++i) m.put(m.stack_top - 16 + 4 * i, frame[i]);
    EXPECT_EQ(far_return(m), -1);
    EXPECT_EQ(m.state().cpl(), 3u);
    EXPECT_EQ(m.state().gpr[rsp], 0x18000u);
    EXPECT_TRUE(m.state().seg[ds].unusable());
}

TEST(FarTransfers, a_return_to_an_inner_ring_is_refused) {
    SystemMachine m;
    m.enter_protected(3);
    m.put(m.stack_top, std::uint32_t(0x1234));
    m.put(m.stack_top + 4, std::uint32_t(m.kernel_code));
    EXPECT_EQ(far_return(m), vec::gp);
    EXPECT_EQ(m.state().gpr[rsp], m.stack_top);
}

struct Tasks : testing::Test {
    Tasks() {
        m.enter_protected();
        m.put_descriptor(m.free_slot, m.descriptor(m.other_tss, 0x67, 0x89, 0));
        auto field = [&](unsigned offset, std::uint32_t v) { m.put(m.other_tss + offset, v); };
        field(0x20, 0x5000);     // EIP
        field(0x24, 0x202);      // EFLAGS
        field(0x28, 0xaaaa0001); // EAX
        field(0x38, 0x19000);    // ESP
        field(0x4c, m.kernel_code);
        for (unsigned offset : {0x48, 0x50, 0x54}) field(offset, m.kernel_data);
        m.state().gpr[rax] = 0x12345678;
    }
    std::uint8_t type_of(std::uint16_t selector) { return m.get<std::uint8_t>(m.gdt + selector + 5) & 15; }
    SystemMachine m;
};

TEST_F(Tasks, a_jump_saves_the_old_task_loads_the_new_one_and_moves_the_busy_mark) {
    EXPECT_EQ(far_jump(m, m.free_slot, 0), -1);
    EXPECT_EQ(m.state().rip, 0x5000u);
    EXPECT_EQ(m.state().gpr[rax], 0xaaaa0001u);
    EXPECT_EQ(m.state().gpr[rsp], 0x19000u);
    EXPECT_EQ(m.state().seg[tr].selector, m.free_slot);
    EXPECT_TRUE(m.state().cr0 & cr0::ts);
    EXPECT_EQ(m.get<std::uint32_t>(m.tss + 0x20), m.code);
    EXPECT_EQ(m.get<std::uint32_t>(m.tss + 0x28), 0x12345678u);
    EXPECT_EQ(type_of(m.tss_selector), 9) << "free again";
    EXPECT_EQ(type_of(m.free_slot), 11);
}

TEST_F(Tasks, a_call_nests_and_iret_goes_back) {
    EXPECT_EQ(far_call(m, m.free_slot, 0), -1);
    EXPECT_TRUE(m.context->rflags() & flag::nt);
    EXPECT_EQ(m.get<std::uint16_t>(m.other_tss), m.tss_selector) << "the link";
    EXPECT_EQ(type_of(m.tss_selector), 11) << "still busy";
    helper::iret(*m.context, 4, 0, 0);
    EXPECT_EQ(m.take_fault(), -1);
    EXPECT_EQ(m.state().rip, m.code);
    EXPECT_EQ(m.state().gpr[rax], 0x12345678u);
    EXPECT_EQ(type_of(m.free_slot), 9);
}

TEST_F(Tasks, a_busy_or_short_task_is_refused_before_anything_changes) {
    EXPECT_EQ(far_jump(m, m.tss_selector, 0), vec::gp) << "busy";
    m.put_descriptor(m.free_slot, m.descriptor(m.other_tss, 0x66, 0x89, 0));
    EXPECT_EQ(far_jump(m, m.free_slot, 0), vec::ts);
    EXPECT_EQ(m.last_error, m.free_slot);
    EXPECT_EQ(m.state().seg[tr].selector, m.tss_selector);
    EXPECT_EQ(m.state().gpr[rax], 0x12345678u);
}

TEST_F(Tasks, a_bad_segment_of_the_new_task_faults_in_the_new_task) {
    m.put(m.other_tss + 0x50, std::uint32_t(m.kernel_code)); // SS
    EXPECT_EQ(far_jump(m, m.free_slot, 0), vec::ts);
    EXPECT_EQ(m.last_error, m.kernel_code);
    EXPECT_TRUE(m.context->fault.in_new_task);
    EXPECT_EQ(m.state().seg[tr].selector, m.free_slot);
    EXPECT_EQ(m.context->fault.rip, 0x5000u);
}

TEST_F(Tasks, a_task_gate_for_an_exception_gets_its_error_code) {
    m.put_gate(vec::gp, m.free_slot, 0, 0x85);
    m.fault(vec::gp, 0x77);
    EXPECT_EQ(m.state().rip, 0x5000u);
    EXPECT_EQ(m.stack32(0), 0x77u);
    EXPECT_TRUE(m.context->rflags() & flag::nt);
}

} // namespace
