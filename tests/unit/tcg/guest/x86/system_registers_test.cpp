// Control and model-specific registers, the mode word, and what comes first between instructions, on fakes.
#include "system_machine.h"
#include "vmm/tcg/guest/x86/events.h"

#include <gtest/gtest.h>

namespace {

using namespace vmm::x86;
using vmm::tcg::x86::compute_mode;
using vmm::tcg::x86::handle_events;
using vmm::tcg::x86::Mode;
using vmm::test::SystemMachine;
namespace helper = vmm::tcg::x86::helper;

int to_cr(SystemMachine& m, unsigned number, std::uint64_t value) {
    helper::mov_to_cr(*m.context, number, value, 0);
    return m.take_fault();
}
int wrmsr(SystemMachine& m, std::uint32_t index, std::uint64_t value) {
    m.state().gpr[rcx] = index, m.state().gpr[rax] = value & 0xffffffff, m.state().gpr[rdx] = value >> 32;
    helper::wrmsr(*m.context, 0, 0, 0);
    return m.take_fault();
}
int rdmsr(SystemMachine& m, std::uint32_t index, std::uint64_t& value) {
    m.state().gpr[rcx] = index;
    helper::rdmsr(*m.context, 0, 0, 0);
    value = m.state().gpr[rax] | m.state().gpr[rdx] << 32;
    return m.take_fault();
}

TEST(ControlRegisters, combinations_that_mean_nothing_are_refused_and_change_nothing) {
    SystemMachine m;
    m.enter_protected();
    std::uint64_t const before = m.state().cr0;
    EXPECT_EQ(to_cr(m, 0, (before & ~cr0::pe) | cr0::pg), vec::gp) << "paging without protection";
    EXPECT_EQ(to_cr(m, 0, (before & ~cr0::cd) | cr0::nw), vec::gp) << "NW without CD";
    EXPECT_EQ(to_cr(m, 0, before | std::uint64_t(1) << 32), vec::gp);
    EXPECT_EQ(m.state().cr0, before);
    EXPECT_EQ(to_cr(m, 4, std::uint64_t(1) << 31), vec::gp) << "a reserved bit";
    EXPECT_EQ(to_cr(m, 8, 16), vec::gp);
    EXPECT_EQ(to_cr(m, 8, 5), -1);
    EXPECT_EQ(m.bus.cr8, 5);
}

TEST(ControlRegisters, paging_with_lme_enters_long_mode_and_only_with_pae) {
    SystemMachine m;
    m.enter_protected();
    m.state().efer = efer::lme;
    EXPECT_EQ(to_cr(m, 0, m.state().cr0 | cr0::pg), vec::gp);
    EXPECT_EQ(to_cr(m, 4, cr4::pae), -1);
    EXPECT_EQ(to_cr(m, 0, m.state().cr0 | cr0::pg), -1);
    EXPECT_TRUE(m.state().efer & efer::lma);
    EXPECT_TRUE(m.context->mode().is(Mode::long_mode));
    EXPECT_FALSE(m.context->mode().is64()) << "compatibility mode until CS says otherwise";
    EXPECT_EQ(to_cr(m, 4, 0), vec::gp) << "PAE stays while in long mode";
    EXPECT_EQ(to_cr(m, 0, m.state().cr0 & ~cr0::pg), -1);
    EXPECT_FALSE(m.state().efer & efer::lma);
}

TEST(ControlRegisters, sixty_four_bit_code_cannot_turn_paging_off) {
    SystemMachine m;
    m.enter_long();
    EXPECT_EQ(to_cr(m, 0, m.state().cr0 & ~cr0::pg), vec::gp);
}

TEST(ControlRegisters, lmsw_sets_protection_but_does_not_clear_it) {
    SystemMachine m;
    m.enter_protected();
    helper::lmsw(*m.context, cr0::ts, 0, 0);
    EXPECT_EQ(m.state().cr0 & (cr0::pe | cr0::ts), cr0::pe | cr0::ts);
    helper::clts(*m.context, 0, 0, 0);
    EXPECT_FALSE(m.state().cr0 & cr0::ts);
}

TEST(DebugRegisters, general_detect_and_the_aliases_of_4_and_5) {
    SystemMachine m;
    m.enter_protected();
    helper::mov_to_dr(*m.context, 4, 0, 0); // DR6
    EXPECT_EQ(m.take_fault(), -1);
    EXPECT_EQ(m.state().dr6, 0xffff0ff0u);
    m.state().cr4 |= cr4::de;
    helper::mov_to_dr(*m.context, 4, 0, 0);
    EXPECT_EQ(m.take_fault(), vec::ud);
    m.state().dr7 |= 1 << 13;
    helper::mov_from_dr(*m.context, 0, 0, 0);
    EXPECT_EQ(m.take_fault(), vec::db);
    EXPECT_TRUE(m.state().dr6 & 1 << 13);
}

TEST(Msrs, reserved_values_and_unknown_registers_are_refused) {
    SystemMachine m("x86-64-v2");
    m.enter_long();
    std::uint64_t v;
    EXPECT_EQ(rdmsr(m, 0x12345, v), vec::gp);
    EXPECT_EQ(wrmsr(m, 0x12345, 0), vec::gp);
    EXPECT_EQ(wrmsr(m, msr::lstar, 0x8000000000000000), vec::gp) << "not canonical";
    EXPECT_EQ(wrmsr(m, msr::pat, 2), vec::gp) << "a memory type there is not";
    EXPECT_EQ(wrmsr(m, msr::efer, m.state().efer & ~efer::lme), vec::gp) << "LME is fixed while paging";
    EXPECT_EQ(wrmsr(m, msr::efer, m.state().efer | std::uint64_t(1) << 40), vec::gp);
}

TEST(Msrs, what_is_written_is_read_and_the_active_bit_is_the_cpus_own) {
    SystemMachine m;
    m.enter_long();
    std::uint64_t v;
    for (auto index : {msr::lstar, msr::fs_base, msr::kernel_gs_base, msr::sysenter_esp}) {
        EXPECT_EQ(wrmsr(m, index, 0xffff800012345678), -1);
        EXPECT_EQ(rdmsr(m, index, v), -1);
        EXPECT_EQ(v, 0xffff800012345678u);
    }
    EXPECT_EQ(wrmsr(m, msr::efer, (m.state().efer & ~efer::lma) | efer::sce | efer::nxe), -1);
    EXPECT_EQ(rdmsr(m, msr::efer, v), -1);
    EXPECT_EQ(v, efer::lma | efer::lme | efer::sce | efer::nxe);
}

TEST(Msrs, amds_performance_counters_take_writes_and_do_not_count) {
    SystemMachine m;
    std::uint64_t v = 1;
    EXPECT_EQ(wrmsr(m, 0xc0010004, 0x1234), -1);
    EXPECT_EQ(rdmsr(m, 0xc0010004, v), -1);
    EXPECT_EQ(v, 0u);
}

TEST(Msrs, a_written_time_stamp_counter_goes_on_from_there) {
    SystemMachine m;
    m.enter_long();
    m.bus.tsc_value = 1'000'000;
    EXPECT_EQ(wrmsr(m, msr::tsc, 50), -1);
    std::uint64_t v;
    EXPECT_EQ(rdmsr(m, msr::tsc, v), -1);
    EXPECT_EQ(v, 50u + 1000) << "the fake counts 1000 at a look";
}

TEST(ModeWord, says_width_privilege_and_flatness) {
    SystemMachine m;
    EXPECT_EQ(compute_mode(m.state()).code_bytes(), 2u) << "real mode";
    m.enter_protected(3);
    Mode mode = compute_mode(m.state());
    EXPECT_EQ(mode.code_bytes(), 4u);
    EXPECT_EQ(mode.cpl(), 3u);
    EXPECT_TRUE(mode.is(Mode::flat));
    m.state().seg[ds].base = 16;
    EXPECT_FALSE(compute_mode(m.state()).is(Mode::flat));
    SystemMachine wide;
    wide.enter_long();
    EXPECT_TRUE(compute_mode(wide.state()).is64());
    EXPECT_TRUE(compute_mode(wide.state()).is(Mode::flat)) << "segments do not count in 64-bit code";
    wide.state().seg[cs].attributes = 0xc09b;
    EXPECT_EQ(compute_mode(wide.state()).code_bytes(), 4u) << "compatibility mode";
}

TEST(ModeWord, single_steps_for_tf_shadows_and_armed_breakpoints) {
    SystemMachine m;
    m.enter_protected();
    auto single = [&] { return compute_mode(m.state()).is(Mode::single); };
    EXPECT_FALSE(single());
    m.state().rflags |= flag::tf;
    EXPECT_TRUE(single());
    m.state().rflags &= ~flag::tf;
    m.state().interrupt_shadow = true;
    EXPECT_TRUE(single());
    m.state().interrupt_shadow = false;
    m.state().dr7 |= 2;
    EXPECT_TRUE(single());
}

TEST(ModeWord, alignment_is_checked_in_ring_3_alone) {
    for (unsigned cpl : {0u, 3u}) {
        SystemMachine m;
        m.enter_protected(cpl);
        m.state().cr0 |= cr0::am;
        m.state().rflags |= flag::ac;
        EXPECT_EQ(compute_mode(m.state()).is(Mode::alignment_check), cpl == 3);
    }
}

struct Events : testing::Test {
    Events() {
        m.enter_protected();
        m.put_gate(vec::nmi, m.kernel_code, 0x2000, 0x8e);
        m.put_gate(0x40, m.kernel_code, 0x4000, 0x8e);
        m.bus.vector = 0x40;
        m.bus.pending = true;
        m.state().rflags |= flag::if_;
    }
    SystemMachine m;
};

TEST_F(Events, an_nmi_comes_before_an_interrupt_which_then_finds_interrupts_disabled) {
    m.state().nmi_pending = true;
    EXPECT_TRUE(handle_events(*m.context, true));
    EXPECT_EQ(m.state().rip, 0x2000u);
    EXPECT_TRUE(m.state().nmi_blocked);
    EXPECT_FALSE(handle_events(*m.context, true));
    EXPECT_EQ(m.bus.acknowledged, 0u);
}

TEST_F(Events, a_second_nmi_waits_until_the_first_is_done) {
    m.bus.pending = false;
    m.state().nmi_blocked = m.state().nmi_pending = true;
    EXPECT_FALSE(handle_events(*m.context, true));
    EXPECT_TRUE(m.state().nmi_pending);
}

TEST_F(Events, the_shadow_of_sti_holds_interrupts_but_not_nmis) {
    m.state().interrupt_shadow = true;
    EXPECT_FALSE(handle_events(*m.context, true));
    m.state().nmi_pending = true;
    EXPECT_TRUE(handle_events(*m.context, true));
    EXPECT_EQ(m.state().rip, 0x2000u);
}

TEST_F(Events, an_interrupt_wakes_a_halted_cpu) {
    m.state().activity = Activity::halted;
    EXPECT_TRUE(handle_events(*m.context, true));
    EXPECT_EQ(m.state().activity, Activity::running);
    EXPECT_EQ(m.state().rip, 0x4000u);
    EXPECT_EQ(m.stack32(0), m.code);
}

TEST_F(Events, init_comes_first_and_an_application_processor_then_waits_for_its_sipi) {
    m.state().init_pending = m.state().nmi_pending = true;
    EXPECT_TRUE(handle_events(*m.context, false));
    EXPECT_EQ(m.state().activity, Activity::wait_for_sipi);
    m.state().sipi_pending = true, m.state().sipi_vector = 0x9a;
    EXPECT_TRUE(handle_events(*m.context, false));
    EXPECT_EQ(m.state().activity, Activity::running);
    EXPECT_EQ(m.state().seg[cs].base, 0x9a000u);
    EXPECT_EQ(m.state().rip, 0u);
}

TEST_F(Events, nothing_but_init_wakes_a_cpu_that_shut_down) {
    m.state().activity = Activity::shutdown;
    m.state().nmi_pending = true;
    EXPECT_FALSE(handle_events(*m.context, true));
    m.state().init_pending = true;
    EXPECT_TRUE(handle_events(*m.context, true));
    EXPECT_EQ(m.state().activity, Activity::running);
}

} // namespace
