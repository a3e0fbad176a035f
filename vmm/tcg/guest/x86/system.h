// What the engine loop and the helpers share about the system state of an x86 CPU: the mode word, the program counter.
#pragma once
#include "vmm/tcg/guest/x86/context.h"
#include "vmm/tcg/guest/x86/mmu.h"

#include <cstdint>

namespace vmm::tcg::x86 {

// The mode word that `s` means.
Mode compute_mode(State const& s);
// Recomputes engine.mode and the translation view; to be called after anything either depends on: CS, SS, DS, ES, CPL,
// RFLAGS.{TF,AC,VM}, CR0, CR4, EFER, XCR0, MXCSR masks, DR7, shadows.
void update_mode(X86Context& c);

// The program counter. set_pc stores it truncated to the code segment's width.
inline std::uint64_t truncate_pc(State const& s, std::uint64_t rip) { return s.code64() ? rip : rip & 0xffffffff; }
inline void set_pc(X86Context& c, std::uint64_t rip) { c.state.rip = truncate_pc(c.state, rip); }
// Linear address of the next instruction.
inline std::uint64_t linear_pc(State const& s) { return s.code64() ? s.rip : (s.seg[cs].base + s.rip) & 0xffffffff; }

// 48 bits, or 57 with CR4.LA57.
inline bool is_canonical(State const& s, std::uint64_t va) {
    unsigned unused = s.cr4 & cr4::la57 ? 7 : 16;
    return std::uint64_t(std::int64_t(va << unused) >> unused) == va;
}

inline unsigned iopl(State const& s) { return unsigned(s.rflags >> 12) & 3; }
// CS.RPL's privilege as instructions see it: 0 in real mode, 3 in virtual-8086 mode.
inline unsigned current_cpl(State const& s) {
    if (!(s.cr0 & cr0::pe)) return 0;
    return s.v8086() ? 3 : s.cpl();
}

// The bits of CR4 that exist on this model.
std::uint64_t cr4_allowed(CpuModel const& model);

// After State was replaced (set_state, reset): rebuilds everything derived from it.
void state_replaced(X86Context& c);

// Records #GP(0).
inline void raise_gp(X86Context& c) { c.raise(vec::gp, 0); }

} // namespace vmm::tcg::x86
