// The architectural state of one x86 CPU: one plain aggregate, shared by every engine, saved in snapshots.
#pragma once
#include "vmm/base/fields.h"
#include "vmm/cpu/x86/constants.h"

#include <array>
#include <cstdint>

namespace vmm::x86 {

// A segment register with its hidden part (SDM vol. 3 3.4.3).
struct Segment {
    std::uint64_t base = 0;
    std::uint32_t limit = 0xffff; // in bytes, granularity applied
    std::uint16_t attributes = 0; // namespace attr
    std::uint16_t selector = 0;
    bool unusable() const { return !(attributes & attr::present); }
    unsigned dpl() const { return (attributes & attr::dpl) >> attr::dpl_shift; }
};
template <class V> void fields(V& v, Segment& s) {
    v.field("base", s.base);
    v.field("limit", s.limit);
    v.field("attributes", s.attributes);
    v.field("selector", s.selector);
}

// GDTR, IDTR.
struct TableRegister {
    std::uint64_t base = 0;
    std::uint16_t limit = 0xffff;
};
template <class V> void fields(V& v, TableRegister& s) {
    v.field("base", s.base);
    v.field("limit", s.limit);
}

// x87 (SDM vol. 1 ch. 8). Registers are in physical order R0..R7 (TOP is in fsw bits 11-13); 10 bytes used of each 16.
struct X87 {
    struct alignas(16) Register {
        std::uint64_t mantissa = 0;
        std::uint16_t sign_exponent = 0;
        std::array<std::uint16_t, 3> unused{};
    };
    std::array<Register, 8> r{};
    std::uint16_t fcw = 0x37f, fsw = 0;
    std::uint8_t tags = 0; // abridged: bit n set = R<n> not empty (the FXSAVE form)
    std::uint16_t fop = 0;
    std::uint64_t fip = 0, fdp = 0;
    std::uint16_t fcs = 0, fds = 0;
};
template <class V> void fields(V& v, X87::Register& s) {
    v.field("mantissa", s.mantissa);
    v.field("sign_exponent", s.sign_exponent);
}
template <class V> void fields(V& v, X87& s) {
    v.field("r", s.r);
    v.field("fcw", s.fcw);
    v.field("fsw", s.fsw);
    v.field("tags", s.tags);
    v.field("fop", s.fop);
    v.field("fip", s.fip);
    v.field("fdp", s.fdp);
    v.field("fcs", s.fcs);
    v.field("fds", s.fds);
}

using Ymm = std::array<std::uint64_t, 4>; // little-endian lanes; [0..1] is the XMM register

// AVX-512 parts beyond YMM0-15: only the KVM engine lets guests use them.
struct Avx512 {
    std::array<std::uint64_t, 8> k{};
    std::array<Ymm, 16> zmm_high{};                      // ZMM0-15 bits 256..511
    std::array<std::array<std::uint64_t, 8>, 16> hi16{}; // ZMM16-31
};

// Memory-type range registers: stored, not acted on.
struct Mtrr {
    std::uint64_t def_type = 0;
    std::array<std::uint64_t, 16> variable{}; // base0, mask0, base1, ...
    std::array<std::uint64_t, 11> fixed{};
};
template <class V> void fields(V& v, Mtrr& s) {
    v.field("def_type", s.def_type);
    v.field("variable", s.variable);
    v.field("fixed", s.fixed);
}

// What the CPU does between instructions.
enum class Activity : std::uint8_t { running, halted, wait_for_sipi, shutdown };

struct State {
    // Field order puts what translated code touches most within the first bytes.
    std::array<std::uint64_t, 16> gpr{};
    std::uint64_t rip = 0;
    std::uint64_t rflags = 2;
    std::array<Segment, seg_count> seg{};
    TableRegister gdtr, idtr;
    std::uint64_t cr0 = 0x60000010, cr2 = 0, cr3 = 0, cr4 = 0, xcr0 = 1, efer = 0;
    std::array<std::uint64_t, 4> dr{}; // DR0-3
    std::uint64_t dr6 = 0xffff0ff0, dr7 = 0x400;
    alignas(32) std::array<Ymm, 16> ymm{};
    std::uint32_t mxcsr = 0x1f80;
    std::uint32_t pkru = 0;
    X87 x87;
    Avx512 avx512;

    std::uint64_t star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0;
    std::uint64_t sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
    std::uint64_t pat = 0x0007040600070406, misc_enable = 1, tsc_adjust = 0, tsc_aux = 0, spec_ctrl = 0, xss = 0;
    std::uint64_t mcg_status = 0, mcg_ctl = 0, smbase = 0x30000;
    std::array<std::uint64_t, 40> mc_banks{}; // 10 banks of CTL, STATUS, ADDR, MISC
    Mtrr mtrr;

    // Event state.
    Activity activity = Activity::running;
    bool interrupt_shadow = false; // after STI or MOV SS: one instruction without interrupts
    bool debug_shadow = false;     // after MOV SS: debug exceptions held back too
    bool nmi_blocked = false;      // until IRET
    bool nmi_pending = false, smi_pending = false, in_smm = false;
    std::uint8_t sipi_vector = 0;
    bool sipi_pending = false, init_pending = false;
    // An event whose delivery was interrupted (saved between exit and re-entry by an engine that needs it).
    bool event_pending = false, event_has_error = false, event_is_software = false;
    std::uint8_t event_vector = 0;
    std::uint32_t event_error = 0;
    std::uint64_t monitor_address = 0;

    // What the guest told KVM as a paravirtual host (the kernel's Documentation/virt/kvm/x86/msr.rst). The other engines
    // offer none of it and carry it along.
    std::uint64_t kvm_wall_clock = 0, kvm_system_time = 0, kvm_async_pf = 0, kvm_async_pf_vector = 0;
    std::uint64_t kvm_steal_time = 0, kvm_end_of_interrupt = 0, kvm_poll_control = 1;

    unsigned cpl() const { return seg[ss].dpl(); }
    bool protected_mode() const { return cr0 & cr0::pe; }
    bool v8086() const { return rflags & flag::vm; }
    bool long_mode() const { return efer & efer::lma; }
    bool code64() const { return long_mode() && (seg[cs].attributes & attr::l); }
};

// Every field, once. Order is the stream's; names are stable.
template <class V> void fields(V& v, State& s);
extern template void fields(StateWriter&, State&);
extern template void fields(StateReader&, State&);

// The state after RESET (SDM vol. 3 table 10-1); `signature` is CPUID.1:EAX, which reset leaves in EDX.
State reset_state(std::uint32_t signature, bool bsp);
// INIT: like reset, but caches, x87/SSE and MSRs the SDM names keep their values.
void apply_init(State& state, std::uint32_t signature, bool bsp);

// Registers in the form of `info registers`.
std::string describe(State const& state);

} // namespace vmm::x86
