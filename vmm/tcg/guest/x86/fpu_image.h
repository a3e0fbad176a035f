// What every user of the x87 state shares: register addressing, tags, the control and status words' rules.
#pragma once
#include "vmm/cpu/x86/state.h"

#include <cstdint>

namespace vmm::tcg::x86 {

// Status word bits (SDM vol. 1 8.1.3).
namespace fsw {
inline constexpr std::uint16_t ie = 1, de = 2, ze = 4, oe = 8, ue = 0x10, pe = 0x20, sf = 0x40, es = 0x80, c0 = 0x100,
                               c1 = 0x200, c2 = 0x400, c3 = 0x4000, busy = 0x8000, exceptions = 0x3f, top_mask = 0x3800,
                               conditions = c0 | c1 | c2 | c3;
inline constexpr unsigned top_shift = 11;
} // namespace fsw
// Control word: bit 6 reads as 1, bits 7, 13-15 as 0; bit 12 (infinity control) is kept.
inline constexpr std::uint16_t fcw_writable = 0x1f3f, fcw_fixed = 0x40;

inline unsigned top(vmm::x86::X87 const& x) { return x.fsw >> fsw::top_shift & 7; }
inline void set_top(vmm::x86::X87& x, unsigned t) {
    x.fsw = std::uint16_t((x.fsw & ~fsw::top_mask) | (t & 7) << fsw::top_shift);
}
inline unsigned physical(vmm::x86::X87 const& x, unsigned i) { return (top(x) + i) & 7; }
inline vmm::x86::X87::Register& st(vmm::x86::X87& x, unsigned i) { return x.r[physical(x, i)]; }
inline vmm::x86::X87::Register const& st(vmm::x86::X87 const& x, unsigned i) { return x.r[physical(x, i)]; }
inline bool is_empty(vmm::x86::X87 const& x, unsigned i) { return !(x.tags >> physical(x, i) & 1); }

// ES and B follow from the flags and their masks.
inline void update_summary(vmm::x86::X87& x) {
    bool pending = x.fsw & ~x.fcw & fsw::exceptions;
    x.fsw = std::uint16_t((x.fsw & ~(fsw::es | fsw::busy)) | (pending ? fsw::es | fsw::busy : 0));
}

} // namespace vmm::tcg::x86
