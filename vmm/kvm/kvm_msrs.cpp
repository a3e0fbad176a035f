// The MSRs of the architectural state.
#include "vmm/kvm/kvm_state.h"

#include <asm/kvm_para.h>

namespace vmm::kvm {

namespace {

namespace msr = x86::msr;
constexpr std::uint32_t smbase_msr = 0x9e;

constexpr StateMsr rows[] = {
    {msr::star, &x86::State::star},
    {msr::lstar, &x86::State::lstar},
    {msr::cstar, &x86::State::cstar},
    {msr::sfmask, &x86::State::sfmask},
    {msr::kernel_gs_base, &x86::State::kernel_gs_base},
    {msr::sysenter_cs, &x86::State::sysenter_cs},
    {msr::sysenter_esp, &x86::State::sysenter_esp},
    {msr::sysenter_eip, &x86::State::sysenter_eip},
    {msr::pat, &x86::State::pat},
    {msr::misc_enable, &x86::State::misc_enable},
    {msr::tsc_adjust, &x86::State::tsc_adjust},
    {msr::tsc_aux, &x86::State::tsc_aux},
    {msr::spec_ctrl, &x86::State::spec_ctrl},
    {msr::xss, &x86::State::xss},
    {msr::mcg_status, &x86::State::mcg_status},
    {msr::mcg_ctl, &x86::State::mcg_ctl},
    {smbase_msr, &x86::State::smbase},
    {MSR_KVM_WALL_CLOCK_NEW, &x86::State::kvm_wall_clock},
    {MSR_KVM_SYSTEM_TIME_NEW, &x86::State::kvm_system_time},
    {MSR_KVM_ASYNC_PF_INT, &x86::State::kvm_async_pf_vector}, // before the one that wants it set
    {MSR_KVM_ASYNC_PF_EN, &x86::State::kvm_async_pf},
    {MSR_KVM_STEAL_TIME, &x86::State::kvm_steal_time},
    {MSR_KVM_PV_EOI_EN, &x86::State::kvm_end_of_interrupt},
    {MSR_KVM_POLL_CONTROL, &x86::State::kvm_poll_control},
};

constexpr std::uint32_t fixed_mtrrs[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

} // namespace

std::span<StateMsr const> state_msrs() { return rows; }

std::size_t array_msrs(x86::State& s, unsigned banks, std::span<ArrayMsr> out) {
    std::size_t n = 0;
    out[n++] = {msr::mtrr_def_type, &s.mtrr.def_type};
    for (std::uint32_t i = 0; i < s.mtrr.variable.size(); ++i)
        out[n++] = {msr::mtrr_physbase0 + i, &s.mtrr.variable[i]};
    for (std::size_t i = 0; i < s.mtrr.fixed.size(); ++i) out[n++] = {fixed_mtrrs[i], &s.mtrr.fixed[i]};
    for (std::uint32_t i = 0; i < s.mc_banks.size() && i / 4 < banks; ++i)
        out[n++] = {msr::mc0_ctl + i, &s.mc_banks[i]};
    return n;
}

} // namespace vmm::kvm
