#include "vmm/tcg/guest/x86/system.h"

namespace vmm::tcg::x86 {

static bool flat_data(Segment const& s) {
    constexpr std::uint16_t wanted = attr::present | attr::s | attr::writable;
    return s.base == 0 && s.limit == 0xffffffff && (s.attributes & (wanted | attr::code | attr::expand_down)) == wanted;
}

Mode compute_mode(State const& s) {
    Mode m;
    bool pe = s.cr0 & cr0::pe, vm = s.v8086();
    Segment const& code = s.seg[cs];
    if (s.code64())
        m.bits |= Mode::code64 | Mode::flat;
    else {
        if (code.attributes & attr::db) m.bits |= Mode::code32;
        if (s.seg[ss].attributes & attr::db) m.bits |= Mode::stack32;
        if (pe && !vm && code.base == 0 && code.limit == 0xffffffff && (code.attributes & attr::readable) &&
            flat_data(s.seg[ss]) && flat_data(s.seg[ds]) && flat_data(s.seg[es]))
            m.bits |= Mode::flat;
    }
    m.bits |= std::uint64_t(current_cpl(s)) << Mode::cpl_shift;
    if (vm)
        m.bits |= Mode::vm86;
    else if (pe)
        m.bits |= Mode::protected_mode;
    if (s.cr0 & cr0::em) m.bits |= Mode::cr0_em;
    if (s.cr0 & cr0::ts) m.bits |= Mode::cr0_ts;
    if (s.cr0 & cr0::mp) m.bits |= Mode::cr0_mp;
    if (s.cr4 & cr4::osfxsr) m.bits |= Mode::osfxsr;
    if (s.cr4 & cr4::osxmmexcpt) m.bits |= Mode::osxmmexcpt;
    constexpr std::uint64_t avx_state = xcr0::sse | xcr0::avx;
    if ((s.cr4 & cr4::osxsave) && (s.xcr0 & avx_state) == avx_state) m.bits |= Mode::avx;
    if ((s.mxcsr & 0x1f80) != 0x1f80) m.bits |= Mode::fp_trap;
    if ((s.rflags & flag::tf) || s.interrupt_shadow || s.debug_shadow || (s.dr7 & 0xff)) m.bits |= Mode::single;
    if (s.long_mode()) m.bits |= Mode::long_mode;
    if ((s.cr0 & cr0::am) && (s.rflags & flag::ac) && current_cpl(s) == 3) m.bits |= Mode::alignment_check;
    return m;
}

void update_mode(X86Context& c) {
    c.engine.mode = compute_mode(c.state).bits;
    c.mmu->select_view();
}

void state_replaced(X86Context& c) {
    set_cc_raw(c.engine, c.state.rflags);
    c.engine.fault_pending = 0;
    c.mmu->reconfigure();
    update_mode(c);
}

} // namespace vmm::tcg::x86
