#include "vmm/tcg/engine/lockstep_compare.h"

#include "vmm/base/endian.h"
#include "vmm/base/fields.h"

#include <Zydis/Zydis.h>
#include <fmt/core.h>

#include <cstring>
#include <vector>

namespace vmm::tcg {

using vmm::x86::State;

// Padding makes comparing whole States impossible.
bool same_registers(State const& a, State const& b) {
    auto bytes = [](auto const& x, auto const& y) { return std::memcmp(&x, &y, sizeof x) == 0; };
    auto table = [](x86::TableRegister const& x, x86::TableRegister const& y) {
        return x.base == y.base && x.limit == y.limit;
    };
    auto x87 = [&](x86::X87 const& x, x86::X87 const& y) {
        for (unsigned i = 0; i < 8; ++i)
            if (x.r[i].mantissa != y.r[i].mantissa || x.r[i].sign_exponent != y.r[i].sign_exponent) return false;
        return x.fcw == y.fcw && x.fsw == y.fsw && x.tags == y.tags && x.fop == y.fop && x.fip == y.fip &&
               x.fdp == y.fdp && x.fcs == y.fcs && x.fds == y.fds;
    };
    return a.rip == b.rip && bytes(a.gpr, b.gpr) && bytes(a.seg, b.seg) && table(a.gdtr, b.gdtr) &&
           table(a.idtr, b.idtr) && a.cr0 == b.cr0 && a.cr2 == b.cr2 && a.cr3 == b.cr3 && a.cr4 == b.cr4 &&
           a.xcr0 == b.xcr0 && a.efer == b.efer && bytes(a.dr, b.dr) && a.dr6 == b.dr6 && a.dr7 == b.dr7 &&
           bytes(a.ymm, b.ymm) && a.mxcsr == b.mxcsr && a.pkru == b.pkru && x87(a.x87, b.x87) && a.star == b.star &&
           a.lstar == b.lstar && a.cstar == b.cstar && a.sfmask == b.sfmask && a.kernel_gs_base == b.kernel_gs_base &&
           a.sysenter_cs == b.sysenter_cs && a.sysenter_esp == b.sysenter_esp && a.sysenter_eip == b.sysenter_eip &&
           a.pat == b.pat && a.misc_enable == b.misc_enable && a.tsc_adjust == b.tsc_adjust && a.tsc_aux == b.tsc_aux &&
           a.xss == b.xss && a.smbase == b.smbase && bytes(a.mc_banks, b.mc_banks) && bytes(a.mtrr, b.mtrr) &&
           a.activity == b.activity && a.interrupt_shadow == b.interrupt_shadow && a.debug_shadow == b.debug_shadow &&
           a.nmi_blocked == b.nmi_blocked && a.nmi_pending == b.nmi_pending && a.in_smm == b.in_smm;
}

std::string different_fields(State const& a, State const& b) {
    StateWriter first, second;
    save_state(first, a);
    save_state(second, b);
    auto const &x = first.bytes(), &y = second.bytes();
    std::string text;
    for (std::size_t at = 0; at < x.size();) { // the stream's format: vmm/base/fields.h
        std::size_t name_size = x[at], values = at + 1 + name_size + 5;
        std::size_t size = x[at + 1 + name_size], count = load_le<std::uint32_t>(&x[at + 2 + name_size]);
        std::string name(reinterpret_cast<char const*>(&x[at + 1]), name_size);
        for (std::size_t i = 0; i < count; ++i) {
            auto value = [&](std::vector<std::uint8_t> const& bytes) {
                std::uint64_t v = 0;
                std::memcpy(&v, &bytes[values + i * size], size);
                return v;
            };
            if (value(x) == value(y)) continue;
            text += fmt::format("  {}{}: {:#x} against {:#x}\n", name, count > 1 ? fmt::format("[{}]", i) : "",
                                value(x), value(y));
        }
        at = values + size * count;
    }
    return text;
}

std::uint64_t undefined_flags(ZydisDecodedInstruction const& d) {
    using namespace vmm::x86;
    std::uint64_t undefined = d.cpu_flags->undefined;
    switch (d.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return undefined | flag::of | flag::af | flag::cf;
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: return undefined | flag::of;
    default: return undefined;
    }
}

} // namespace vmm::tcg
