// Far jumps, calls and returns, IRET, SYSCALL/SYSENTER and their returns (SDM vol. 2; vol. 3 chapters 5 and 6).
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/segments.h"
#include "vmm/tcg/guest/x86/system.h"
#include "vmm/tcg/guest/x86/task.h"

namespace vmm::tcg::x86 {

namespace {

bool real_or_vm(State const& s) { return !s.protected_mode() || s.v8086(); }
std::uint64_t width_mask(unsigned size) { return size == 8 ? ~std::uint64_t(0) : size == 4 ? 0xffffffff : 0xffff; }
bool fail(X86Context& c, std::uint8_t vector, std::uint16_t selector) {
    raise_selector(c, vector, selector);
    return false;
}

// Whether code may begin at `offset` of the segment: limit, or canonical in 64-bit code.
bool check_target(X86Context& c, Descriptor const& d, std::uint64_t offset) {
    bool wide = c.state.long_mode() && d.long_code();
    if (wide ? is_canonical(c.state, offset) : offset <= d.limit()) return true;
    raise_gp(c);
    return false;
}

// Rights for a transfer without gate.
bool check_direct_code(X86Context& c, std::uint16_t selector, Descriptor const& d) {
    unsigned cpl = c.state.cpl();
    bool allowed = d.conforming() ? d.dpl() <= cpl : rpl(selector) <= cpl && d.dpl() == cpl;
    if (!allowed || (c.state.long_mode() && d.long_code() && d.big())) return fail(c, vec::gp, selector);
    return d.present() || fail(c, vec::np, selector);
}

void commit_code(X86Context& c, std::uint16_t selector, Descriptor const& d, unsigned cpl, std::uint64_t rip) {
    c.state.seg[cs] = make_segment(std::uint16_t((selector & ~3) | cpl), d);
    c.state.rip = rip;
    update_mode(c);
}

struct CallGate {
    std::uint16_t selector = 0;
    std::uint64_t offset = 0;
    unsigned size = 0, params = 0;
    Descriptor code;
};
// Checks the gate `d` read from `selector` and reads its code segment.
bool read_call_gate(X86Context& c, std::uint16_t selector, Descriptor& d, bool jump, CallGate& g) {
    State& s = c.state;
    unsigned cpl = s.cpl();
    if (d.dpl() < cpl || d.dpl() < rpl(selector)) return fail(c, vec::gp, selector);
    if (!d.present()) return fail(c, vec::np, selector);
    bool lm = s.long_mode();
    if (lm && !read_upper(c, selector, d)) return false;
    g.selector = d.gate_selector();
    g.size = lm ? 8 : d.type() & 8 ? 4 : 2;
    g.offset = d.gate_offset(lm) & width_mask(g.size);
    g.params = d.high & 31;
    if (is_null(g.selector)) return raise_gp(c), false;
    if (!read_descriptor(c, g.selector, g.code)) return false;
    if (!g.code.code() || g.code.dpl() > cpl || (lm && (!g.code.long_code() || g.code.big())))
        return fail(c, vec::gp, g.selector);
    if (jump && !g.code.conforming() && g.code.dpl() != cpl) return fail(c, vec::gp, g.selector);
    if (!g.code.present()) return fail(c, vec::np, g.selector);
    return true;
}

bool is_call_gate(State const& s, Descriptor const& d) {
    return d.type() == descriptor_type::call32 || (d.type() == descriptor_type::call16 && !s.long_mode());
}
bool is_free_tss(State const& s, Descriptor const& d) {
    return !s.long_mode() && (d.type() == descriptor_type::tss32 || d.type() == descriptor_type::tss16);
}

// TSS or task gate as the target of a jump or call.
bool transfer_to_task(X86Context& c, std::uint16_t selector, Descriptor const& d, TaskSwitch why) {
    bool gate = d.type() == descriptor_type::task;
    if (c.state.long_mode() || (!gate && !is_free_tss(c.state, d))) return fail(c, vec::gp, selector);
    if (d.dpl() < c.state.cpl() || d.dpl() < rpl(selector)) return fail(c, vec::gp, selector);
    if (!d.present()) return fail(c, vec::np, selector);
    return gate ? switch_through_gate(c, d.gate_selector(), why, c.state.rip)
                : switch_task(c, selector, why, c.state.rip);
}

// CALL through a gate to a more privileged, non-conforming segment.
bool call_inner(X86Context& c, CallGate& g) {
    State& s = c.state;
    unsigned new_cpl = g.code.dpl();
    Segment new_ss = s.seg[ss];
    std::uint64_t sp = 0;
    bool lm = s.long_mode();
    if (lm ? !inner_stack64(c, new_cpl, 0, sp) : !inner_stack(c, new_cpl, 0, new_ss, sp)) return false;
    Stack stack(c, new_ss, sp,
                lm                             ? 8
                : new_ss.attributes & attr::db ? 4
                                               : 2,
                new_cpl, lm ? 0 : new_ss.selector & 0xfffcu);
    Stack old(c);
    if (!stack.push(g.size, s.seg[ss].selector) || !stack.push(g.size, s.gpr[rsp])) return false;
    for (unsigned i = lm ? 0 : g.params; i-- > 0;) {
        std::uint64_t parameter;
        if (!old.peek(i * g.size, g.size, parameter) || !stack.push(g.size, parameter)) return false;
    }
    if (!stack.push(g.size, s.seg[cs].selector) || !stack.push(g.size, s.rip)) return false;
    if (!check_target(c, g.code, g.offset) || !set_accessed(c, g.selector, g.code)) return false;
    s.seg[ss] = lm ? null_segment(std::uint16_t(new_cpl), new_cpl) : new_ss;
    stack.commit();
    commit_code(c, g.selector, g.code, new_cpl, g.offset);
    return true;
}

bool call_same(X86Context& c, std::uint16_t selector, Descriptor& code, std::uint64_t offset, unsigned size) {
    State& s = c.state;
    Stack stack(c);
    if (!stack.push(size, s.seg[cs].selector) || !stack.push(size, s.rip)) return false;
    if (!check_target(c, code, offset) || !set_accessed(c, selector, code)) return false;
    stack.commit();
    commit_code(c, selector, code, s.cpl(), offset);
    return true;
}

void far_transfer_real(X86Context& c, std::uint16_t selector, std::uint64_t offset, unsigned size, bool call) {
    State& s = c.state;
    if (offset > s.seg[cs].limit) return raise_gp(c);
    Stack stack(c);
    if (call && (!stack.push(size, s.seg[cs].selector) || !stack.push(size, s.rip))) return;
    stack.commit();
    load_real_segment(s, cs, selector);
    s.rip = offset;
    update_mode(c);
}

void far_transfer(X86Context& c, std::uint16_t selector, std::uint64_t offset, unsigned size, bool call) {
    State& s = c.state;
    offset &= width_mask(size);
    if (real_or_vm(s)) return far_transfer_real(c, selector, offset, size, call);
    if (is_null(selector)) return raise_gp(c);
    Descriptor d;
    if (!read_descriptor(c, selector, d)) return;
    if (d.code()) {
        if (!check_direct_code(c, selector, d)) return;
        if (call) {
            call_same(c, selector, d, offset, size);
            return;
        }
        if (check_target(c, d, offset) && set_accessed(c, selector, d)) commit_code(c, selector, d, s.cpl(), offset);
        return;
    }
    if (!d.system()) return void(fail(c, vec::gp, selector));
    if (!is_call_gate(s, d)) {
        transfer_to_task(c, selector, d, call ? TaskSwitch::call : TaskSwitch::jump);
        return;
    }
    CallGate g;
    if (!read_call_gate(c, selector, d, !call, g)) return;
    if (!call) {
        if (check_target(c, g.code, g.offset) && set_accessed(c, g.selector, g.code))
            commit_code(c, g.selector, g.code, s.cpl(), g.offset);
    } else if (!g.code.conforming() && g.code.dpl() < s.cpl()) {
        call_inner(c, g);
    } else {
        call_same(c, g.selector, g.code, g.offset, g.size);
    }
}

// Return target of RETF and IRET: the code segment for the popped selector.
bool read_return_code(X86Context& c, std::uint16_t selector, Descriptor& d) {
    if (is_null(selector)) return raise_gp(c), false;
    if (!read_descriptor(c, selector, d)) return false;
    unsigned target = rpl(selector);
    bool allowed = d.code() && target >= c.state.cpl() && (d.conforming() ? d.dpl() <= target : d.dpl() == target);
    if (!allowed || (c.state.long_mode() && d.long_code() && d.big())) return fail(c, vec::gp, selector);
    return d.present() || fail(c, vec::np, selector);
}

// The stack segment popped by a return to an outer privilege or by a 64-bit IRET.
bool read_return_stack(X86Context& c, std::uint16_t selector, unsigned cpl, bool to64, Segment& out) {
    if (is_null(selector) && c.state.long_mode() && to64 && cpl != 3 && rpl(selector) == cpl) {
        out = null_segment(selector, cpl);
        return true;
    }
    return check_stack_segment(c, selector, cpl, vec::gp, 0, out);
}

// After a return to an outer privilege: RSP as wide as the new stack is.
void load_outer_stack(State& s, Segment const& new_ss, std::uint64_t sp, bool to64) {
    s.seg[ss] = new_ss;
    if (to64)
        s.gpr[rsp] = sp;
    else if (new_ss.attributes & attr::db)
        s.gpr[rsp] = sp & 0xffffffff;
    else
        s.gpr[rsp] = (s.gpr[rsp] & ~std::uint64_t(0xffff)) | (sp & 0xffff);
}

void add_to_stack_pointer(State& s, std::uint64_t bytes) {
    std::uint64_t mask = s.code64() ? ~std::uint64_t(0) : s.seg[ss].attributes & attr::db ? 0xffffffff : 0xffff;
    s.gpr[rsp] = (s.gpr[rsp] & ~mask) | ((s.gpr[rsp] + bytes) & mask);
}

// Which flags IRET at this privilege may change.
std::uint64_t iret_flags(X86Context const& c, std::uint64_t popped, unsigned size, unsigned cpl) {
    using namespace flag;
    std::uint64_t mask = arithmetic | tf | df | nt;
    if (size > 2) mask |= rf | ac | id;
    if (cpl <= iopl(c.state)) mask |= if_;
    if (cpl == 0) mask |= flag::iopl | (size > 2 ? vif | vip : 0);
    return (c.rflags() & ~mask) | (popped & mask);
}

void load_flags(X86Context& c, std::uint64_t flags) {
    // RF matters only while breakpoints are armed; without them it would cost every return a block of its own.
    if (!(c.state.dr7 & 0xff)) flags &= ~flag::rf;
    c.rf_loaded = flags & flag::rf;
    c.set_rflags(flags);
}

void iret_real(X86Context& c, unsigned size) {
    State& s = c.state;
    bool vm = s.v8086(), vme_return = false;
    if (vm && iopl(s) < 3) {
        if (!(s.cr4 & cr4::vme) || size != 2) return raise_gp(c);
        vme_return = true;
    }
    Stack stack(c);
    std::uint64_t rip, selector, popped;
    if (!stack.pop(size, rip) || !stack.pop(size, selector) || !stack.pop(size, popped)) return;
    if (rip > s.seg[cs].limit) return raise_gp(c);
    using namespace flag;
    std::uint64_t mask = arithmetic | tf | df | nt | if_ | (size > 2 ? rf | ac | id : 0) | (vm ? 0 : flag::iopl);
    std::uint64_t flags = (c.rflags() & ~mask) | (popped & mask);
    if (vme_return) {
        // VME: IF stands for VIF; the real one stays.
        bool wants = popped & if_;
        if ((popped & tf) || (wants && (s.rflags & vip))) return raise_gp(c);
        flags = (flags & ~(if_ | vif)) | (s.rflags & if_) | (wants ? vif : 0);
    }
    stack.commit();
    load_real_segment(s, cs, std::uint16_t(selector));
    s.rip = rip;
    load_flags(c, flags);
    update_mode(c);
}

void iret_to_vm(X86Context& c, Stack& stack, std::uint64_t rip, std::uint64_t selector, std::uint64_t flags) {
    State& s = c.state;
    std::uint64_t sp, popped[5];
    if (!stack.pop(4, sp)) return;
    for (std::uint64_t& v : popped)
        if (!stack.pop(4, v)) return;
    if (rip > 0xffff) return raise_gp(c);
    load_flags(c, (flags & 0x3fffff) | flag::vm);
    load_real_segment(s, cs, std::uint16_t(selector));
    static constexpr Seg order[] = {ss, es, ds, fs, gs};
    for (unsigned i = 0; i < 5; ++i) load_real_segment(s, order[i], std::uint16_t(popped[i]));
    s.gpr[rsp] = sp & 0xffffffff;
    s.rip = rip;
    update_mode(c);
}

void iret_nested_task(X86Context& c) {
    State& s = c.state;
    if (s.long_mode()) return raise_gp(c);
    std::uint16_t link;
    if (!c.mmu->load_system(s.seg[tr].base, link)) return;
    if (link & 4) return raise_selector(c, vec::ts, link);
    switch_task(c, link, TaskSwitch::iret, s.rip);
}

void iret_protected(X86Context& c, unsigned size) {
    State& s = c.state;
    if (s.rflags & flag::nt) return iret_nested_task(c);
    Stack stack(c);
    std::uint64_t rip, selector64, popped;
    if (!stack.pop(size, rip) || !stack.pop(size, selector64) || !stack.pop(size, popped)) return;
    auto selector = std::uint16_t(selector64);
    unsigned cpl = s.cpl(), target = rpl(selector);
    if (size == 4 && (popped & flag::vm) && cpl == 0 && !s.long_mode())
        return iret_to_vm(c, stack, rip, selector, popped);
    Descriptor code;
    if (!read_return_code(c, selector, code)) return;
    bool from64 = s.code64(), to64 = s.long_mode() && code.long_code(), outer = target > cpl;
    Segment new_ss = s.seg[ss];
    std::uint64_t sp = 0;
    if (outer || from64) {
        std::uint64_t ss_selector;
        if (!stack.pop(size, sp) || !stack.pop(size, ss_selector)) return;
        if (!read_return_stack(c, std::uint16_t(ss_selector), target, to64, new_ss)) return;
    }
    if (!check_target(c, code, rip) || !set_accessed(c, selector, code)) return;
    std::uint64_t flags = iret_flags(c, popped, size, cpl);
    stack.commit();
    if (outer || from64) load_outer_stack(s, new_ss, sp, to64);
    load_flags(c, flags & ~flag::vm);
    if (outer) drop_inaccessible_segments(s, target);
    s.nmi_blocked = false;
    commit_code(c, selector, code, target, rip);
}

void far_return_protected(X86Context& c, unsigned size, std::uint64_t release) {
    State& s = c.state;
    Stack stack(c);
    std::uint64_t rip, selector64;
    if (!stack.pop(size, rip) || !stack.pop(size, selector64)) return;
    auto selector = std::uint16_t(selector64);
    Descriptor code;
    if (!read_return_code(c, selector, code)) return;
    unsigned target = rpl(selector);
    bool outer = target > s.cpl(), to64 = s.long_mode() && code.long_code();
    Segment new_ss;
    std::uint64_t sp = 0;
    stack.skip(release);
    if (outer) {
        std::uint64_t ss_selector;
        if (!stack.pop(size, sp) || !stack.pop(size, ss_selector)) return;
        if (!read_return_stack(c, std::uint16_t(ss_selector), target, to64, new_ss)) return;
    }
    if (!check_target(c, code, rip) || !set_accessed(c, selector, code)) return;
    stack.commit();
    if (outer) {
        load_outer_stack(s, new_ss, sp, to64);
        s.seg[cs] = make_segment(selector, code);
        add_to_stack_pointer(s, release);
        drop_inaccessible_segments(s, target);
    }
    commit_code(c, selector, code, target, rip);
}

void set_flat_code(State& s, std::uint16_t selector, unsigned cpl, bool wide) {
    s.seg[cs] = {.base = 0,
                 .limit = 0xffffffff,
                 .attributes = std::uint16_t(attr::present | attr::s | attr::g | attr::code | attr::readable |
                                             attr::accessed | cpl << attr::dpl_shift | (wide ? attr::l : attr::db)),
                 .selector = selector};
}
void set_flat_stack(State& s, std::uint16_t selector, unsigned cpl) {
    s.seg[ss] = {.base = 0,
                 .limit = 0xffffffff,
                 .attributes = std::uint16_t(attr::present | attr::s | attr::g | attr::db | attr::writable |
                                             attr::accessed | cpl << attr::dpl_shift),
                 .selector = selector};
}

} // namespace

namespace helper {

std::uint64_t far_jump(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    far_transfer(c, std::uint16_t(a), b, unsigned(d), false);
    return 0;
}

std::uint64_t far_call(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    far_transfer(c, std::uint16_t(a), b, unsigned(d), true);
    return 0;
}

std::uint64_t far_return(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    State& s = c.state;
    if (!real_or_vm(s)) {
        far_return_protected(c, unsigned(a), b);
        return 0;
    }
    Stack stack(c);
    std::uint64_t rip, selector;
    if (!stack.pop(unsigned(a), rip) || !stack.pop(unsigned(a), selector)) return 0;
    if (rip > s.seg[cs].limit) return raise_gp(c), 0;
    stack.skip(b);
    stack.commit();
    load_real_segment(s, cs, std::uint16_t(selector));
    s.rip = rip;
    update_mode(c);
    return 0;
}

std::uint64_t iret(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (real_or_vm(c.state)) {
        iret_real(c, unsigned(a));
        if (!c.faulted()) c.state.nmi_blocked = false;
    } else {
        iret_protected(c, unsigned(a));
    }
    return 0;
}

std::uint64_t check_code_target(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    State const& s = c.state;
    if (s.code64() ? !is_canonical(s, a) : a > s.seg[cs].limit) raise_gp(c);
    return a;
}

std::uint64_t syscall(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    if (!(s.efer & efer::sce) || !s.protected_mode()) return c.raise(vec::ud), 0;
    auto selector = std::uint16_t(s.star >> 32 & 0xfffc);
    if (s.long_mode()) {
        bool wide = s.code64();
        s.gpr[rcx] = s.rip;
        s.gpr[r11] = c.rflags() & ~flag::rf;
        s.rip = wide ? s.lstar : s.cstar;
        c.set_rflags(c.rflags() & ~(s.sfmask | flag::rf));
        set_flat_code(s, selector, 0, true);
    } else {
        s.gpr[rcx] = s.rip & 0xffffffff;
        s.rip = s.star & 0xffffffff;
        c.set_rflags(c.rflags() & ~(flag::vm | flag::if_ | flag::rf));
        set_flat_code(s, selector, 0, false);
    }
    set_flat_stack(s, std::uint16_t(selector + 8), 0);
    update_mode(c);
    return 0;
}

std::uint64_t sysret(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    if (!(s.efer & efer::sce) || !s.protected_mode()) return c.raise(vec::ud), 0;
    bool wide = a == 8;
    if (wide && !is_canonical(s, s.gpr[rcx])) return raise_gp(c), 0;
    auto base = std::uint16_t(s.star >> 48);
    bool lm = s.long_mode();
    if (lm) {
        std::uint64_t flags = s.gpr[r11] & 0x3c7fd7 & ~flag::vm;
        c.set_rflags(flags | flag::one);
    } else {
        c.set_rflags(c.rflags() | flag::if_);
    }
    s.rip = wide ? s.gpr[rcx] : s.gpr[rcx] & 0xffffffff;
    set_flat_code(s, std::uint16_t((wide ? base + 16 : base) | 3), 3, wide);
    set_flat_stack(s, std::uint16_t((base + 8) | 3), 3);
    update_mode(c);
    return 0;
}

std::uint64_t sysenter(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    auto selector = std::uint16_t(s.sysenter_cs & 0xfffc);
    if (!s.protected_mode() || selector == 0) return raise_gp(c), 0;
    bool wide = s.long_mode();
    c.set_rflags(c.rflags() & ~(flag::vm | flag::if_ | flag::rf));
    s.gpr[rsp] = wide ? s.sysenter_esp : s.sysenter_esp & 0xffffffff;
    s.rip = wide ? s.sysenter_eip : s.sysenter_eip & 0xffffffff;
    set_flat_code(s, selector, 0, wide);
    set_flat_stack(s, std::uint16_t(selector + 8), 0);
    update_mode(c);
    return 0;
}

std::uint64_t sysexit(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    State& s = c.state;
    auto base = std::uint16_t(s.sysenter_cs & 0xfffc);
    if (!s.protected_mode() || base == 0 || s.cpl() != 0) return raise_gp(c), 0;
    bool wide = a == 8;
    if (wide && (!is_canonical(s, s.gpr[rdx]) || !is_canonical(s, s.gpr[rcx]))) return raise_gp(c), 0;
    s.rip = wide ? s.gpr[rdx] : s.gpr[rdx] & 0xffffffff;
    s.gpr[rsp] = wide ? s.gpr[rcx] : s.gpr[rcx] & 0xffffffff;
    set_flat_code(s, std::uint16_t((base + (wide ? 32 : 16)) | 3), 3, wide);
    set_flat_stack(s, std::uint16_t((base + (wide ? 40 : 24)) | 3), 3);
    update_mode(c);
    return 0;
}

} // namespace helper
} // namespace vmm::tcg::x86
