// CLI, STI, PUSHF, POPF with the IOPL, VME and PVI rules (SDM vol. 2; vol. 3 20.3).
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/system.h"

namespace vmm::tcg::x86 {

namespace {
// CLI/STI below IOPL act on VIF: VME in virtual-8086 mode, PVI at CPL 3.
bool virtual_interrupts(State const& s) {
    return s.v8086() ? (s.cr4 & cr4::vme) != 0 : (s.cr4 & cr4::pvi) && current_cpl(s) == 3;
}
bool may_change_if(State const& s) { return !s.protected_mode() || current_cpl(s) <= iopl(s); }
} // namespace

namespace helper {

std::uint64_t cli(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    if (may_change_if(s))
        s.rflags &= ~flag::if_;
    else if (virtual_interrupts(s))
        s.rflags &= ~flag::vif;
    else
        raise_gp(c);
    return 0;
}

std::uint64_t sti(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    if (may_change_if(s)) {
        if (!(s.rflags & flag::if_)) s.interrupt_shadow = c.shadow_begun = true;
        s.rflags |= flag::if_;
        update_mode(c);
    } else if (virtual_interrupts(s) && !(s.rflags & flag::vip)) {
        s.rflags |= flag::vif;
    } else {
        raise_gp(c);
    }
    return 0;
}

std::uint64_t interrupt_window(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    if (c.bus->interrupt_pending()) c.engine.fault_pending = fault_retry;
    return 0;
}

std::uint64_t pushf_image(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    State const& s = c.state;
    std::uint64_t image = c.rflags() & ~(flag::vm | flag::rf);
    if (s.v8086() && iopl(s) < 3) {
        if (!(s.cr4 & cr4::vme) || a != 2) return raise_gp(c), 0;
        image |= flag::iopl;
        image = image & flag::vif ? image | flag::if_ : image & ~flag::if_;
    }
    return image;
}

std::uint64_t popf(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    State& s = c.state;
    using namespace flag;
    std::uint64_t mask = arithmetic | tf | df | nt | (a > 2 ? ac | id : 0), now = c.rflags();
    if (s.v8086() && iopl(s) < 3) {
        bool wants = b & if_;
        if (!(s.cr4 & cr4::vme) || a != 2 || (b & tf) || (wants && (now & vip))) return raise_gp(c), 0;
        now = wants ? now | vif : now & ~vif;
    } else {
        if (may_change_if(s)) mask |= if_;
        if (current_cpl(s) == 0) mask |= flag::iopl;
    }
    c.set_rflags((now & ~(mask | rf)) | (b & mask));
    std::uint64_t sp_mask = s.code64() ? ~std::uint64_t(0) : s.seg[ss].attributes & attr::db ? 0xffffffff : 0xffff;
    s.gpr[rsp] = (s.gpr[rsp] & ~sp_mask) | (d & sp_mask);
    update_mode(c);
    return 0;
}

std::uint64_t set_direction(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    c.state.rflags = a ? c.state.rflags | flag::df : c.state.rflags & ~flag::df;
    return 0;
}

} // namespace helper
} // namespace vmm::tcg::x86
