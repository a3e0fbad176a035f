#include "vmm/tcg/guest/x86/exceptions.h"

#include "vmm/tcg/guest/x86/segments.h"
#include "vmm/tcg/guest/x86/stack_access.h"
#include "vmm/tcg/guest/x86/system.h"
#include "vmm/tcg/guest/x86/task.h"

namespace vmm::tcg::x86 {

namespace {

struct Event {
    std::uint8_t vector;
    bool has_error = false;
    std::uint32_t error = 0;
    bool software = false; // INT n, INT3, INTO: gate DPL counts, EXT is 0
    bool exception = false;
    bool set_rf = false; // fault-class exceptions resume past instruction breakpoints
    std::uint64_t return_rip = 0;
    unsigned ext() const { return software ? 0 : 1; }
    std::uint32_t gate_error() const { return vector * 8u + 2 + ext(); }
};

std::uint64_t flags_image(X86Context const& c, Event const& e) { return e.set_rf ? c.rflags() | flag::rf : c.rflags(); }

bool deliver_real(X86Context& c, Event const& e) {
    State& s = c.state;
    unsigned offset = e.vector * 4u;
    if (offset + 3 > s.idtr.limit) return c.raise(vec::gp, e.gate_error()), false;
    std::uint32_t entry;
    if (!c.mmu->load_system(s.idtr.base + offset, entry)) return false;
    Stack stack(c);
    if (!stack.push(2, flags_image(c, e)) || !stack.push(2, s.seg[cs].selector) || !stack.push(2, e.return_rip))
        return false;
    stack.commit();
    s.rflags &= ~(flag::if_ | flag::tf | flag::ac | flag::rf);
    load_real_segment(s, cs, std::uint16_t(entry >> 16));
    s.rip = entry & 0xffff;
    return true;
}

// The gate's code segment. False: fault recorded.
bool target_code(X86Context& c, Event const& e, std::uint16_t selector, Descriptor& d, unsigned& new_cpl) {
    if (is_null(selector)) return c.raise(vec::gp, e.ext()), false;
    if (!read_descriptor(c, selector, d, vec::gp, e.ext())) return false;
    unsigned cpl = current_cpl(c.state);
    bool bad_width = c.state.long_mode() && (!d.long_code() || d.big());
    if (!d.code() || d.dpl() > cpl || bad_width) return raise_selector(c, vec::gp, selector, e.ext()), false;
    if (!d.present()) return raise_selector(c, vec::np, selector, e.ext()), false;
    new_cpl = d.conforming() ? cpl : d.dpl();
    return true;
}

void enter_handler(X86Context& c, std::uint16_t selector, Descriptor const& d, unsigned new_cpl, bool interrupt_gate) {
    State& s = c.state;
    s.seg[cs] = make_segment(std::uint16_t((selector & ~3) | new_cpl), d);
    s.rflags &= ~(flag::tf | flag::nt | flag::rf | flag::vm);
    if (interrupt_gate) s.rflags &= ~flag::if_;
}

bool deliver_long(X86Context& c, Event const& e) {
    State& s = c.state;
    unsigned offset = e.vector * 16u;
    auto bad_gate = [&](std::uint8_t vector) { return c.raise(vector, e.gate_error()), false; };
    if (offset + 15 > s.idtr.limit) return bad_gate(vec::gp);
    std::uint64_t raw[2];
    if (!c.mmu->read(s.idtr.base + offset, 16, raw, View::kernel_smap)) return false;
    Descriptor gate{std::uint32_t(raw[0]), std::uint32_t(raw[0] >> 32), raw[1] & 0xffffffff};
    unsigned type = gate.high >> 8 & 0x1f, cpl = s.cpl(), new_cpl;
    if (type != descriptor_type::interrupt32 && type != descriptor_type::trap32) return bad_gate(vec::gp);
    if (e.software && gate.dpl() < cpl) return bad_gate(vec::gp);
    if (!gate.present()) return bad_gate(vec::np);
    Descriptor code;
    if (!target_code(c, e, gate.gate_selector(), code, new_cpl)) return false;
    std::uint64_t sp = s.gpr[rsp];
    if (unsigned ist = gate.high & 7) {
        if (!inner_stack64(c, 3 + ist - 1, e.ext(), sp)) return false;
    } else if (new_cpl < cpl) {
        if (!inner_stack64(c, new_cpl, e.ext(), sp)) return false;
    }
    sp &= ~std::uint64_t(15);
    std::uint64_t target = gate.gate_offset(true);
    if (!is_canonical(s, target)) return raise_gp(c), false;
    std::uint64_t frame[6] = {e.error,           e.return_rip, s.seg[cs].selector,
                              flags_image(c, e), s.gpr[rsp],   s.seg[ss].selector};
    unsigned bytes = e.has_error ? 48 : 40;
    if (!is_canonical(s, sp - bytes) || !is_canonical(s, sp - 1)) return c.raise(vec::ss, e.ext()), false;
    if (!set_accessed(c, gate.gate_selector(), code)) return false;
    if (!c.mmu->write(sp - bytes, bytes, frame + (e.has_error ? 0 : 1), view_for(s, new_cpl))) return false;
    if (new_cpl < cpl) s.seg[ss] = null_segment(std::uint16_t(new_cpl), new_cpl);
    s.gpr[rsp] = sp - bytes;
    enter_handler(c, gate.gate_selector(), code, new_cpl, type == descriptor_type::interrupt32);
    s.rip = target;
    return true;
}

// Pushes the frame of a protected-mode gate; `size` is 2 or 4.
bool push_frame(X86Context& c, Event const& e, Stack& stack, unsigned size, bool from_vm, bool inner) {
    State const& s = c.state;
    if (from_vm)
        for (Seg which : {gs, fs, ds, es})
            if (!stack.push(size, s.seg[which].selector)) return false;
    if (inner && (!stack.push(size, s.seg[ss].selector) || !stack.push(size, s.gpr[rsp]))) return false;
    return stack.push(size, flags_image(c, e)) && stack.push(size, s.seg[cs].selector) &&
           stack.push(size, e.return_rip) && (!e.has_error || stack.push(size, e.error));
}

bool deliver_protected(X86Context& c, Event const& e) {
    State& s = c.state;
    unsigned offset = e.vector * 8u, cpl = current_cpl(s), new_cpl;
    bool from_vm = s.v8086();
    auto bad_gate = [&](std::uint8_t vector) { return c.raise(vector, e.gate_error()), false; };
    if (offset + 7 > s.idtr.limit) return bad_gate(vec::gp);
    std::uint64_t raw;
    if (!c.mmu->load_system(s.idtr.base + offset, raw)) return false;
    Descriptor gate{std::uint32_t(raw), std::uint32_t(raw >> 32), 0};
    unsigned type = gate.high >> 8 & 0x1f;
    bool is_task = type == descriptor_type::task;
    if (!is_task && (type & ~9u) != descriptor_type::interrupt16) return bad_gate(vec::gp);
    if (e.software && gate.dpl() < cpl) return bad_gate(vec::gp);
    if (!gate.present()) return bad_gate(vec::np);
    if (is_task) {
        std::optional<std::uint32_t> error;
        if (e.has_error) error = e.error;
        return switch_through_gate(c, gate.gate_selector(), TaskSwitch::gate, e.return_rip, error, e.ext());
    }
    Descriptor code;
    if (!target_code(c, e, gate.gate_selector(), code, new_cpl)) return false;
    if (from_vm && new_cpl != 0) return raise_selector(c, vec::gp, gate.gate_selector(), e.ext()), false;
    unsigned size = type & 8 ? 4 : 2;
    bool inner = new_cpl < cpl;
    Segment stack_segment = s.seg[ss];
    std::uint64_t sp = s.gpr[rsp];
    std::uint32_t stack_error = e.ext();
    if (inner) {
        if (!inner_stack(c, new_cpl, e.ext(), stack_segment, sp)) return false;
        stack_error |= stack_segment.selector & 0xfffcu;
    }
    std::uint64_t target = gate.gate_offset(false) & (size == 4 ? 0xffffffff : 0xffff);
    if (target > code.limit()) return c.raise(vec::gp, e.ext()), false;
    Stack stack(c, stack_segment, sp, stack_segment.attributes & attr::db ? 4 : 2, new_cpl, stack_error);
    if (!push_frame(c, e, stack, size, from_vm, inner)) return false;
    if (!set_accessed(c, gate.gate_selector(), code)) return false;
    stack.commit();
    s.seg[ss] = stack_segment;
    if (from_vm)
        for (Seg which : {gs, fs, ds, es}) s.seg[which] = null_segment(0);
    enter_handler(c, gate.gate_selector(), code, new_cpl, !(type & 1));
    s.rip = target;
    return true;
}

bool deliver_once(X86Context& c, Event const& e) {
    if (!c.state.protected_mode()) return deliver_real(c, e);
    return c.state.long_mode() ? deliver_long(c, e) : deliver_protected(c, e);
}

bool contributory(unsigned vector) { return vector == vec::de || (vector >= vec::ts && vector <= vec::gp); }

// SDM vol. 3 table 6-5: what comes of `second` while delivering `first`. False: shutdown.
bool combine(Event const& first, Event& second) {
    bool serious = contributory(second.vector) || second.vector == vec::pf;
    if (!first.exception || !serious) return true;
    if (first.vector == vec::df) return false;
    bool twice = first.vector == vec::pf || (contributory(first.vector) && contributory(second.vector));
    if (twice) second = {.vector = vec::df, .has_error = true, .exception = true, .return_rip = second.return_rip};
    return true;
}

Event event_of(Fault const& f, std::uint64_t rip) {
    Event e{.vector = f.vector, .has_error = f.has_error, .error = f.error};
    e.software = f.software;
    e.exception = !f.software;
    e.return_rip = f.software ? rip + f.length : rip;
    bool trap = f.vector == vec::db || f.vector == vec::bp || f.vector == vec::of || f.vector == vec::nmi;
    e.set_rf = e.exception && !trap;
    return e;
}

void run(X86Context& c, Event e) {
    State& s = c.state;
    for (;;) {
        if (c.log && c.log->enabled(Trace::interrupts))
            c.log->trace(Trace::interrupts,
                         fmt::format("v={:02x} e={:04x} i={} cpl={} IP={:04x}:{:016x} SP={:04x}:{:016x} CR2={:016x}\n",
                                     e.vector, e.error, int(e.software), current_cpl(s), s.seg[cs].selector, s.rip,
                                     s.seg[ss].selector, s.gpr[rsp], s.cr2));
        if (e.vector == vec::db && e.exception) s.dr7 &= ~std::uint64_t(1 << 13);
        c.engine.fault_pending = 0;
        std::uint64_t rip = s.rip;
        if (deliver_once(c, e)) {
            if (!c.faulted()) break;
            // A task gate led to a task that faults before its first instruction: an exception of its own.
            if (c.fault.vector == vec::pf) s.cr2 = c.fault.address;
            e = event_of(c.fault, s.rip);
            continue;
        }
        if (c.fault.vector == vec::pf) s.cr2 = c.fault.address;
        Event second = event_of(c.fault, rip);
        c.engine.fault_pending = 0;
        if (!combine(e, second)) {
            s.activity = Activity::shutdown;
            break;
        }
        e = second;
    }
    s.interrupt_shadow = s.debug_shadow = false;
    update_mode(c);
}

} // namespace

void deliver(X86Context& c) {
    State& s = c.state;
    Fault f = c.fault;
    c.engine.fault_pending = 0;
    if (f.not_canonical && is_stack_access(c, f.address)) f.vector = vec::ss;
    if (f.vector == vec::pf && f.has_error) s.cr2 = f.address;
    if (f.in_new_task) s.rip = f.rip; // the engine put the switching instruction's address there
    Event e = event_of(f, truncate_pc(s, s.rip));
    // INT1 returns past itself like software interrupts, but no gate privilege counts.
    if (f.privileged) e.software = false;
    e.return_rip = truncate_pc(s, e.return_rip);
    run(c, e);
}

void deliver_interrupt(X86Context& c, std::uint8_t vector, bool nmi) {
    if (nmi) c.state.nmi_blocked = true;
    run(c, {.vector = vector, .return_rip = c.state.rip});
}

bool begin_single_step(X86Context& c, StepStart& start) {
    State& s = c.state;
    start = {.trap = (s.rflags & flag::tf) != 0, .shadow = s.interrupt_shadow, .debug_shadow = s.debug_shadow};
    c.shadow_begun = false;
    c.mmu->take_watch_hits();
    if (!(s.dr7 & 0xff) || (s.rflags & flag::rf) || s.debug_shadow) return true;
    std::uint64_t hits = 0, pc = linear_pc(s);
    for (unsigned i = 0; i < 4; ++i)
        if ((s.dr7 >> (2 * i) & 3) && !(s.dr7 >> (16 + 4 * i) & 15) && s.dr[i] == pc) hits |= std::uint64_t(1) << i;
    if (!hits) return true;
    s.dr6 = (s.dr6 & ~std::uint64_t(15)) | hits;
    c.raise(vec::db);
    return false;
}

void after_single_step(X86Context& c, StepStart const& start) {
    State& s = c.state;
    if (start.shadow && !c.shadow_begun) s.interrupt_shadow = false;
    if (start.debug_shadow) s.debug_shadow = false;
    // IRET and task switches load RF for the next instruction: they leave it to begin with a fresh step.
    if (!c.rf_loaded) s.rflags &= ~flag::rf;
    c.rf_loaded = false;
    std::uint64_t hits = c.mmu->take_watch_hits() | c.pending_debug;
    c.pending_debug = 0;
    if (start.trap) hits |= std::uint64_t(1) << 14;
    if (hits && !s.debug_shadow) {
        s.dr6 = (s.dr6 & ~std::uint64_t(15)) | hits;
        c.raise(vec::db);
    } else {
        c.pending_debug = hits & ~(std::uint64_t(1) << 14);
    }
    update_mode(c);
}

} // namespace vmm::tcg::x86
