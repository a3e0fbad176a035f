// Model-specific registers (SDM vol. 4): those a guest of our CPU models touches; others are #GP(0).
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/system.h"

#include <optional>

namespace vmm::tcg::x86 {

namespace {

using vmm::x86::Feature;
constexpr unsigned variable_mtrrs = 8, mc_bank_count = 10;

bool is_x2apic_or_apic(std::uint32_t i) {
    return i == msr::apic_base || i == msr::tsc_deadline || (i >= msr::x2apic_first && i <= msr::x2apic_last);
}

// Registers that hold 64 bits and nothing else.
std::uint64_t* plain(State& s, std::uint32_t i) {
    switch (i) {
    case msr::star: return &s.star;
    case msr::sysenter_cs: return &s.sysenter_cs;
    case msr::mcg_status: return &s.mcg_status;
    case msr::mcg_ctl: return &s.mcg_ctl;
    case msr::misc_enable: return &s.misc_enable;
    case msr::mtrr_def_type: return &s.mtrr.def_type;
    case msr::mtrr_fix64k: return &s.mtrr.fixed[0];
    default: break;
    }
    if (i == msr::mtrr_fix16k_0 || i == msr::mtrr_fix16k_1) return &s.mtrr.fixed[1 + i - msr::mtrr_fix16k_0];
    if (i >= msr::mtrr_fix4k_0 && i < msr::mtrr_fix4k_0 + 8) return &s.mtrr.fixed[3 + i - msr::mtrr_fix4k_0];
    if (i >= msr::mtrr_physbase0 && i < msr::mtrr_physbase0 + 2 * variable_mtrrs)
        return &s.mtrr.variable[i - msr::mtrr_physbase0];
    if (i >= msr::mc0_ctl && i < msr::mc0_ctl + 4 * mc_bank_count) return &s.mc_banks[i - msr::mc0_ctl];
    return nullptr;
}

// Registers that hold a canonical address.
std::uint64_t* address(State& s, std::uint32_t i) {
    switch (i) {
    case msr::lstar: return &s.lstar;
    case msr::cstar: return &s.cstar;
    case msr::fs_base: return &s.seg[fs].base;
    case msr::gs_base: return &s.seg[gs].base;
    case msr::kernel_gs_base: return &s.kernel_gs_base;
    case msr::sysenter_esp: return &s.sysenter_esp;
    case msr::sysenter_eip: return &s.sysenter_eip;
    default: return nullptr;
    }
}

// AMD's configuration registers (SYSCFG, HWCR, TOP_MEM, OSVW, DE_CFG, ...; APM vol. 2 appendix A) and the eight of its
// four performance counters: an AMD model has them (they have no CPUID bit, and Xen writes them unasked), nothing here
// hangs on their bits, so they read as zero and take writes; a kernel that writes a counter and reads it back finds
// that it does not count.
bool is_amd_configuration(CpuModel const& model, std::uint32_t i) {
    return model.vendor == "AuthenticAMD" && i >= 0xc0010000 && i <= 0xc0011fff;
}

std::optional<std::uint64_t> read_msr(X86Context& c, std::uint32_t i) {
    State& s = c.state;
    if (is_x2apic_or_apic(i)) return c.bus->apic_msr_read(i);
    if (auto* r = plain(s, i)) return *r;
    if (auto* r = address(s, i)) return *r;
    switch (i) {
    case msr::tsc: return c.bus->tsc() + s.tsc_adjust;
    case msr::tsc_adjust: return s.tsc_adjust;
    case msr::tsc_aux: return s.tsc_aux;
    case msr::efer: return s.efer;
    case msr::sfmask: return s.sfmask;
    case msr::pat: return s.pat;
    case msr::mtrrcap: return 0x500 | variable_mtrrs; // fixed ranges, write combining
    case msr::mcg_cap: return (1u << 24 | 1u << 8) | mc_bank_count;
    case msr::perf_status: return 0x1000000000000003;
    case msr::bios_update_id: return std::uint64_t(1) << 32;
    case msr::spec_ctrl: return s.spec_ctrl;
    case msr::xss: return s.xss;
    case msr::platform_id:
    case msr::feature_control:
    case msr::arch_capabilities: return 0;
    default:
        if (is_amd_configuration(*c.model, i)) return 0;
        return std::nullopt;
    }
}

bool valid_pat(std::uint64_t v) {
    for (unsigned i = 0; i < 8; ++i, v >>= 8)
        if ((v & 0xff) > 7 || (v & 0xff) == 2 || (v & 0xff) == 3) return false;
    return true;
}

bool write_efer(X86Context& c, std::uint64_t v) {
    State& s = c.state;
    std::uint64_t allowed = efer::lma;
    if (c.model->has(Feature::syscall)) allowed |= efer::sce;
    if (c.model->has(Feature::lm)) allowed |= efer::lme;
    if (c.model->has(Feature::nx)) allowed |= efer::nxe;
    if (c.model->has(Feature::fxsr_opt)) allowed |= efer::ffxsr;
    if (v & ~allowed) return false;
    if ((s.cr0 & cr0::pg) && ((v ^ s.efer) & efer::lme)) return false;
    std::uint64_t now = (v & ~efer::lma) | (s.efer & efer::lma);
    bool nx_changed = (now ^ s.efer) & efer::nxe;
    s.efer = now;
    if (nx_changed) c.mmu->reconfigure();
    return true;
}

bool write_msr(X86Context& c, std::uint32_t i, std::uint64_t v) {
    State& s = c.state;
    if (is_x2apic_or_apic(i)) return c.bus->apic_msr_write(i, v);
    if (auto* r = plain(s, i)) return *r = v, true;
    if (auto* r = address(s, i)) {
        if (!is_canonical(s, v)) return false;
        return *r = v, true;
    }
    switch (i) {
    case msr::tsc: s.tsc_adjust = v - c.bus->tsc(); return true;
    case msr::tsc_adjust: s.tsc_adjust = v; return true;
    case msr::tsc_aux: return v >> 32 ? false : (s.tsc_aux = v, true);
    case msr::efer: return write_efer(c, v);
    case msr::sfmask: s.sfmask = v & 0xffffffff; return true;
    case msr::pat: return valid_pat(v) && (s.pat = v, true);
    case msr::spec_ctrl: s.spec_ctrl = v; return true;
    case msr::xss: return v == 0;
    case msr::pred_cmd:
    case msr::bios_update_id:
    case 0x79: return true; // microcode update trigger: nothing to update
    default: return is_amd_configuration(*c.model, i);
    }
}

} // namespace

namespace helper {

std::uint64_t rdmsr(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    auto index = std::uint32_t(c.state.gpr[rcx]);
    std::optional<std::uint64_t> v = read_msr(c, index);
    if (!v) {
        if (c.log) c.log->unimp("rdmsr of unknown register {:#x}", index);
        raise_gp(c);
        return 0;
    }
    c.state.gpr[rax] = *v & 0xffffffff;
    c.state.gpr[rdx] = *v >> 32;
    return 0;
}

std::uint64_t wrmsr(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    auto index = std::uint32_t(c.state.gpr[rcx]);
    std::uint64_t v = (c.state.gpr[rax] & 0xffffffff) | c.state.gpr[rdx] << 32;
    if (!write_msr(c, index, v)) {
        if (c.log) c.log->unimp("wrmsr of {:#x} to register {:#x} refused", v, index);
        raise_gp(c);
        return 0;
    }
    c.mmu->service_requests();
    update_mode(c);
    return 0;
}

} // namespace helper
} // namespace vmm::tcg::x86
