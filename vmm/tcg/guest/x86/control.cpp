// Control and debug registers, XCR0 (SDM vol. 3 2.5, 17.2).
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/system.h"

namespace vmm::tcg::x86 {

namespace {

using vmm::x86::Feature;

void write_cr0(X86Context& c, std::uint64_t v) {
    State& s = c.state;
    if (v >> 32) return raise_gp(c);
    constexpr std::uint64_t known =
        cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::nw | cr0::cd | cr0::pg;
    v = (v & known) | cr0::et;
    if (((v & cr0::pg) && !(v & cr0::pe)) || ((v & cr0::nw) && !(v & cr0::cd))) return raise_gp(c);
    bool turns_on = (v & cr0::pg) && !(s.cr0 & cr0::pg), turns_off = !(v & cr0::pg) && (s.cr0 & cr0::pg);
    if (turns_on && (s.efer & efer::lme) && (!(s.cr4 & cr4::pae) || (s.seg[cs].attributes & attr::l)))
        return raise_gp(c);
    if (turns_off && ((s.cr4 & cr4::pcide) || s.code64())) return raise_gp(c);
    bool pae = (v & cr0::pg) && (s.cr4 & cr4::pae) && !(s.efer & efer::lme);
    constexpr std::uint64_t reload = cr0::pg | cr0::cd | cr0::nw;
    bool load = pae && ((v ^ s.cr0) & reload);
    if (load && !c.mmu->walker().load_pdptes(s.cr3)) return raise_gp(c);
    std::uint64_t changed = v ^ s.cr0;
    s.cr0 = v;
    if (turns_on && (s.efer & efer::lme)) s.efer |= efer::lma;
    if (turns_off) s.efer &= ~efer::lma;
    if (changed & (cr0::pg | cr0::wp | cr0::pe)) c.mmu->reconfigure();
    update_mode(c);
}

} // namespace

std::uint64_t cr4_allowed(vmm::x86::CpuModel const& m) {
    std::uint64_t v = cr4::tsd | cr4::de | cr4::pse | cr4::pae | cr4::mce | cr4::pge | cr4::pce;
    auto allow = [&](Feature f, std::uint64_t bit) {
        if (m.has(f)) v |= bit;
    };
    allow(Feature::vme, cr4::vme | cr4::pvi);
    allow(Feature::fxsr, cr4::osfxsr);
    allow(Feature::sse, cr4::osxmmexcpt);
    allow(Feature::umip, cr4::umip);
    allow(Feature::la57, cr4::la57);
    allow(Feature::fsgsbase, cr4::fsgsbase);
    allow(Feature::pcid, cr4::pcide);
    allow(Feature::xsave, cr4::osxsave);
    allow(Feature::smep, cr4::smep);
    allow(Feature::smap, cr4::smap);
    allow(Feature::pku, cr4::pke);
    return v;
}

namespace {

void write_cr4(X86Context& c, std::uint64_t v) {
    State& s = c.state;
    if (v & ~cr4_allowed(*c.model)) return raise_gp(c);
    std::uint64_t changed = v ^ s.cr4;
    if (s.long_mode() && (!(v & cr4::pae) || (changed & cr4::la57))) return raise_gp(c);
    if ((changed & v & cr4::pcide) && (!s.long_mode() || (s.cr3 & 0xfff))) return raise_gp(c);
    constexpr std::uint64_t translation =
        cr4::pse | cr4::pae | cr4::pge | cr4::pcide | cr4::smep | cr4::smap | cr4::la57 | cr4::pke;
    bool pae = (s.cr0 & cr0::pg) && (v & cr4::pae) && !s.long_mode();
    bool load = pae && (changed & (cr4::pae | cr4::pge | cr4::pse | cr4::smep));
    if (load && !c.mmu->walker().load_pdptes(s.cr3)) return raise_gp(c);
    s.cr4 = v;
    if (changed & translation) c.mmu->reconfigure();
    update_mode(c);
}

void write_cr3(X86Context& c, std::uint64_t v) {
    State& s = c.state;
    bool keep = false;
    if (s.long_mode()) {
        keep = (s.cr4 & cr4::pcide) && v >> 63;
        if (s.cr4 & cr4::pcide) v &= ~(std::uint64_t(1) << 63);
        if (v >> c.model->physical_bits) return raise_gp(c);
    } else {
        v &= 0xffffffff;
    }
    c.mmu->set_cr3(v, keep);
}

} // namespace

namespace helper {

std::uint64_t mov_to_cr(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    switch (a) {
    case 0: write_cr0(c, b); break;
    case 2: c.state.cr2 = b; break;
    case 3: write_cr3(c, b); break;
    case 4: write_cr4(c, b); break;
    case 8:
        if (b >> 4)
            raise_gp(c);
        else
            c.bus->set_task_priority(std::uint8_t(b));
        break;
    default: c.raise(vec::ud); break;
    }
    return 0;
}

std::uint64_t mov_from_cr(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    switch (a) {
    case 0: return c.state.cr0;
    case 2: return c.state.cr2;
    case 3: return c.state.cr3;
    case 4: return c.state.cr4;
    case 8: return c.bus->task_priority();
    default: c.raise(vec::ud); return 0;
    }
}

// DR7.GD and DR4/5 rules common to both directions; false: fault.
static bool debug_register(X86Context& c, std::uint64_t& number) {
    State& s = c.state;
    if (number == 4 || number == 5) {
        if (s.cr4 & cr4::de) return c.raise(vec::ud), false;
        number += 2;
    }
    if (!(s.dr7 & 1 << 13)) return true;
    s.dr6 |= 1 << 13;
    c.raise(vec::db);
    return false;
}

std::uint64_t mov_to_dr(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    State& s = c.state;
    if (!debug_register(c, a)) return 0;
    if (a >= 6 && b >> 32) return raise_gp(c), 0;
    if (a < 4)
        s.dr[a] = b;
    else if (a == 6)
        s.dr6 = (b & 0xe00f) | 0xffff0ff0;
    else
        s.dr7 = (b & 0xffff2bff) | 0x400;
    if (a != 6) c.mmu->reconfigure();
    update_mode(c);
    return 0;
}

std::uint64_t mov_from_dr(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (!debug_register(c, a)) return 0;
    return a < 4 ? c.state.dr[a] : a == 6 ? c.state.dr6 : c.state.dr7;
}

std::uint64_t clts(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    c.state.cr0 &= ~cr0::ts;
    update_mode(c);
    return 0;
}

std::uint64_t lmsw(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    constexpr std::uint64_t bits = cr0::mp | cr0::em | cr0::ts;
    write_cr0(c, (c.state.cr0 & ~bits) | (a & (bits | cr0::pe))); // PE can be set, not cleared
    return 0;
}

std::uint64_t smsw(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    if ((c.state.cr4 & cr4::umip) && current_cpl(c.state)) raise_gp(c);
    return c.state.cr0;
}

std::uint64_t xgetbv(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    if (!(s.cr4 & cr4::osxsave)) return c.raise(vec::ud), 0;
    auto index = std::uint32_t(s.gpr[rcx]);
    if (index > 1 || (index == 1 && !c.model->has(Feature::xgetbv1))) return raise_gp(c), 0;
    s.gpr[rax] = s.xcr0 & 0xffffffff;
    s.gpr[rdx] = s.xcr0 >> 32;
    return 0;
}

std::uint64_t xsetbv(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    if (!(s.cr4 & cr4::osxsave)) return c.raise(vec::ud), 0;
    std::uint64_t v = (s.gpr[rax] & 0xffffffff) | s.gpr[rdx] << 32;
    std::uint64_t allowed = xcr0::x87 | xcr0::sse;
    if (c.model->has(Feature::avx)) allowed |= xcr0::avx;
    if (c.model->has(Feature::pku)) allowed |= xcr0::pkru;
    bool bad =
        std::uint32_t(s.gpr[rcx]) != 0 || (v & ~allowed) || !(v & xcr0::x87) || ((v & xcr0::avx) && !(v & xcr0::sse));
    if (bad) return raise_gp(c), 0;
    s.xcr0 = v;
    update_mode(c);
    return 0;
}

} // namespace helper
} // namespace vmm::tcg::x86
