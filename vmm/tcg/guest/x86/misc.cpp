// Waiting, time, identification, FS/GS bases, translation invalidation, random numbers.
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/smm.h"
#include "vmm/tcg/guest/x86/system.h"

#include <thread>
#include <utility>

namespace vmm::tcg::x86 {

namespace {
using vmm::x86::Feature;
void put_edx_eax(State& s, std::uint64_t v) {
    s.gpr[rax] = v & 0xffffffff;
    s.gpr[rdx] = v >> 32;
}
bool user_denied(X86Context& c, bool denied) {
    if (!denied || current_cpl(c.state) == 0) return false;
    raise_gp(c);
    return true;
}
} // namespace

namespace helper {

std::uint64_t hlt(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    c.state.activity = Activity::halted;
    c.engine.exit_request.store(1, std::memory_order_relaxed);
    return 0;
}
// MWAIT as a no-operation: the architecture lets it end at any time.
std::uint64_t mwait(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    if (c.state.gpr[rcx] & 0xfffffffe) raise_gp(c);
    return 0;
}
std::uint64_t monitor(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    std::uint8_t byte;
    if (std::uint32_t(c.state.gpr[rcx])) return raise_gp(c), 0;
    if (c.mmu->read(a, 1, &byte, c.mmu->view())) c.state.monitor_address = a;
    return 0;
}
std::uint64_t pause(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    constexpr unsigned spins = 64;
    if (++c.pauses % spins == 0) std::this_thread::yield();
    return 0;
}
std::uint64_t rsm(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    if (!c.state.in_smm) return c.raise(vec::ud), 0;
    leave_smm(c);
    return 0;
}
std::uint64_t rdtsc(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    if (!user_denied(c, c.state.cr4 & cr4::tsd)) put_edx_eax(c.state, c.bus->tsc() + c.state.tsc_adjust);
    return 0;
}
std::uint64_t rdtscp(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    rdtsc(c, 0, 0, 0);
    if (!c.faulted()) c.state.gpr[rcx] = c.state.tsc_aux & 0xffffffff;
    return 0;
}
// No counters are modelled: every index is out of range.
std::uint64_t rdpmc(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) { return raise_gp(c), 0; }
std::uint64_t cpuid(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    vmm::x86::CpuidContext k = c.cpuid;
    k.osxsave = s.cr4 & cr4::osxsave;
    k.ospke = s.cr4 & cr4::pke;
    k.xcr0 = s.xcr0;
    k.xss = s.xss;
    k.tsc_hz = c.bus->tsc_hz();
    auto base = c.bus->apic_msr_read(msr::apic_base);
    k.apic_enabled = !base || (*base & 0x800);
    auto r = vmm::x86::cpuid(*c.model, k, std::uint32_t(s.gpr[rax]), std::uint32_t(s.gpr[rcx]));
    s.gpr[rax] = r.eax, s.gpr[rbx] = r.ebx, s.gpr[rcx] = r.ecx, s.gpr[rdx] = r.edx;
    return 0;
}
std::uint64_t read_fs_gs_base(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (!(c.state.cr4 & cr4::fsgsbase)) c.raise(vec::ud);
    return c.state.seg[a].base;
}
std::uint64_t write_fs_gs_base(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    if (!(c.state.cr4 & cr4::fsgsbase)) return c.raise(vec::ud), 0;
    if (!is_canonical(c.state, b)) return raise_gp(c), 0;
    c.state.seg[a].base = b;
    return 0;
}
std::uint64_t select_view(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    c.mmu->select_view();
    return 0;
}
std::uint64_t rdpkru(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    if (!(c.state.cr4 & cr4::pke)) return c.raise(vec::ud), 0;
    if (std::uint32_t(c.state.gpr[rcx])) return raise_gp(c), 0;
    put_edx_eax(c.state, c.state.pkru);
    return 0;
}
std::uint64_t wrpkru(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    if (!(s.cr4 & cr4::pke)) return c.raise(vec::ud), 0;
    if (std::uint32_t(s.gpr[rcx]) || std::uint32_t(s.gpr[rdx])) return raise_gp(c), 0;
    s.pkru = std::uint32_t(s.gpr[rax]);
    c.mmu->flush_all();
    return 0;
}
std::uint64_t invlpg(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (is_canonical(c.state, a)) c.mmu->invalidate_page(a);
    return 0;
}
std::uint64_t invpcid(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    std::uint64_t d[2];
    if (!c.mmu->read(b, 16, d, c.mmu->view())) return 0;
    bool pcid_off = !(c.state.cr4 & cr4::pcide) && d[0];
    if (a > 3 || (a <= 1 && (d[0] >> 12 || pcid_off)) || (a == 0 && !is_canonical(c.state, d[1])))
        return raise_gp(c), 0;
    if (a == 0)
        c.mmu->invalidate_pcid_page(d[0], d[1]);
    else if (a == 1)
        c.mmu->invalidate_pcid(d[0]);
    else if (a == 2)
        c.mmu->flush_all();
    else
        c.mmu->flush_non_global();
    return 0;
}
std::uint64_t invd(X86Context&, std::uint64_t, std::uint64_t, std::uint64_t) { return 0; }
std::uint64_t cache_line(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    std::uint8_t byte;
    c.mmu->read(a, 1, &byte, c.mmu->view());
    return 0;
}
std::uint64_t random_value(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    set_cc_raw(c.engine, flag::cf);
    return c.bus->random(unsigned(a));
}

} // namespace helper
} // namespace vmm::tcg::x86
