#include "vmm/cpu/x86/state.h"

#include <fmt/core.h>

namespace vmm::x86 {

template <class V> void fields(V& v, State& s) {
    v.field("gpr", s.gpr);
    v.field("rip", s.rip);
    v.field("rflags", s.rflags);
    v.field("seg", s.seg);
    v.field("gdtr", s.gdtr);
    v.field("idtr", s.idtr);
    v.field("cr0", s.cr0);
    v.field("cr2", s.cr2);
    v.field("cr3", s.cr3);
    v.field("cr4", s.cr4);
    v.field("xcr0", s.xcr0);
    v.field("efer", s.efer);
    v.field("dr", s.dr);
    v.field("dr6", s.dr6);
    v.field("dr7", s.dr7);
    for (std::size_t i = 0; i < s.ymm.size(); ++i) v.field("ymm" + std::to_string(i), s.ymm[i]);
    v.field("mxcsr", s.mxcsr);
    v.field("pkru", s.pkru);
    v.field("x87", s.x87);
    v.field("k", s.avx512.k);
    for (std::size_t i = 0; i < 16; ++i) v.field("zmm_high" + std::to_string(i), s.avx512.zmm_high[i]);
    for (std::size_t i = 0; i < 16; ++i) v.field("zmm" + std::to_string(16 + i), s.avx512.hi16[i]);
    v.field("star", s.star);
    v.field("lstar", s.lstar);
    v.field("cstar", s.cstar);
    v.field("sfmask", s.sfmask);
    v.field("kernel_gs_base", s.kernel_gs_base);
    v.field("sysenter_cs", s.sysenter_cs);
    v.field("sysenter_esp", s.sysenter_esp);
    v.field("sysenter_eip", s.sysenter_eip);
    v.field("pat", s.pat);
    v.field("misc_enable", s.misc_enable);
    v.field("tsc_adjust", s.tsc_adjust);
    v.field("tsc_aux", s.tsc_aux);
    v.field("spec_ctrl", s.spec_ctrl);
    v.field("xss", s.xss);
    v.field("mcg_status", s.mcg_status);
    v.field("mcg_ctl", s.mcg_ctl);
    v.field("smbase", s.smbase);
    v.field("mc_banks", s.mc_banks);
    v.field("mtrr", s.mtrr);
    v.field("activity", s.activity);
    v.field("interrupt_shadow", s.interrupt_shadow);
    v.field("debug_shadow", s.debug_shadow);
    v.field("nmi_blocked", s.nmi_blocked);
    v.field("nmi_pending", s.nmi_pending);
    v.field("smi_pending", s.smi_pending);
    v.field("in_smm", s.in_smm);
    v.field("sipi_vector", s.sipi_vector);
    v.field("sipi_pending", s.sipi_pending);
    v.field("init_pending", s.init_pending);
    v.field("event_pending", s.event_pending);
    v.field("event_has_error", s.event_has_error);
    v.field("event_is_software", s.event_is_software);
    v.field("event_vector", s.event_vector);
    v.field("event_error", s.event_error);
    v.field("monitor_address", s.monitor_address);
    v.field("kvm_wall_clock", s.kvm_wall_clock);
    v.field("kvm_system_time", s.kvm_system_time);
    v.field("kvm_async_pf", s.kvm_async_pf);
    v.field("kvm_async_pf_vector", s.kvm_async_pf_vector);
    v.field("kvm_steal_time", s.kvm_steal_time);
    v.field("kvm_end_of_interrupt", s.kvm_end_of_interrupt);
    v.field("kvm_poll_control", s.kvm_poll_control);
}
template void fields(StateWriter&, State&);
template void fields(StateReader&, State&);

// The part of reset that INIT shares.
static void reset_execution(State& s, std::uint32_t signature, bool bsp) {
    s.gpr = {};
    s.gpr[rdx] = signature;
    s.rip = 0xfff0;
    s.rflags = 2;
    for (unsigned i = es; i <= gs; ++i)
        s.seg[i] = {.base = 0, .limit = 0xffff, .attributes = attr::present | attr::s | 3, .selector = 0};
    s.seg[cs] = {.base = 0xffff0000,
                 .limit = 0xffff,
                 .attributes = attr::present | attr::s | attr::code | 3,
                 .selector = 0xf000};
    s.seg[ldtr] = {.base = 0, .limit = 0xffff, .attributes = attr::present | 2, .selector = 0};
    s.seg[tr] = {.base = 0, .limit = 0xffff, .attributes = attr::present | 0xb, .selector = 0};
    s.gdtr = s.idtr = {};
    s.cr2 = s.cr3 = s.cr4 = s.efer = 0;
    s.dr = {};
    s.dr6 = 0xffff0ff0;
    s.dr7 = 0x400;
    s.activity = bsp ? Activity::running : Activity::wait_for_sipi;
    s.interrupt_shadow = s.debug_shadow = s.nmi_blocked = s.nmi_pending = s.in_smm = false;
    s.sipi_pending = s.init_pending = s.event_pending = false;
    s.monitor_address = 0;
}

State reset_state(std::uint32_t signature, bool bsp) {
    State s;
    reset_execution(s, signature, bsp);
    s.cr0 = 0x60000010;
    s.x87.fcw = 0x40;
    s.x87.tags = 0xff;
    return s;
}

void apply_init(State& s, std::uint32_t signature, bool bsp) {
    std::uint64_t cache_bits = s.cr0 & (cr0::cd | cr0::nw);
    reset_execution(s, signature, bsp);
    s.cr0 = cache_bits | cr0::et;
}

std::string describe(State const& s) {
    static constexpr char const* names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                            "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
    static constexpr int order[] = {rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15};
    static constexpr char const* segments[] = {"ES ", "CS ", "SS ", "DS ", "FS ", "GS ", "LDT", "TR "};
    std::string text;
    for (int i = 0; i < 16; ++i)
        text += fmt::format("{}={:016x}{}", names[order[i]], s.gpr[order[i]], i % 4 == 3 ? "\n" : " ");
    auto bit = [&](std::uint64_t mask, char c) { return s.rflags & mask ? c : '-'; };
    text += fmt::format("RIP={:016x} RFL={:08x} [{}{}{}{}{}{}{}] CPL={} II={} A20=1 SMM={} HLT={}\n", s.rip, s.rflags,
                        bit(flag::df, 'D'), bit(flag::of, 'O'), bit(flag::sf, 'S'), bit(flag::zf, 'Z'),
                        bit(flag::af, 'A'), bit(flag::pf, 'P'), bit(flag::cf, 'C'), s.cpl(), int(s.interrupt_shadow),
                        int(s.in_smm), int(s.activity == Activity::halted));
    for (unsigned i = 0; i < seg_count; ++i)
        text += fmt::format("{}={:04x} {:016x} {:08x} {:08x}\n", segments[i], s.seg[i].selector, s.seg[i].base,
                            s.seg[i].limit, unsigned(s.seg[i].attributes) << 8);
    text += fmt::format("GDT=     {:016x} {:08x}\nIDT=     {:016x} {:08x}\n", s.gdtr.base, s.gdtr.limit, s.idtr.base,
                        s.idtr.limit);
    text += fmt::format("CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x}\n", s.cr0, s.cr2, s.cr3, s.cr4);
    text += fmt::format("DR0={:016x} DR1={:016x} DR2={:016x} DR3={:016x}\nDR6={:016x} DR7={:016x}\nEFER={:016x}\n",
                        s.dr[0], s.dr[1], s.dr[2], s.dr[3], s.dr6, s.dr7, s.efer);
    text += fmt::format("FCW={:04x} FSW={:04x} [ST={}] FTW={:02x} MXCSR={:08x}\n", s.x87.fcw, s.x87.fsw,
                        s.x87.fsw >> 11 & 7, s.x87.tags, s.mxcsr);
    for (unsigned i = 0; i < 8; ++i)
        text +=
            fmt::format("FPR{}={:016x} {:04x}{}", i, s.x87.r[i].mantissa, s.x87.r[i].sign_exponent, i % 2 ? "\n" : " ");
    for (unsigned i = 0; i < 16; ++i)
        text += fmt::format("XMM{:02}={:016x}{:016x}{}", i, s.ymm[i][1], s.ymm[i][0], i % 2 ? "\n" : " ");
    return text;
}

} // namespace vmm::x86
