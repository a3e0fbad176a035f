#include "vmm/tcg/guest/x86/task.h"

#include "vmm/tcg/guest/x86/segments.h"
#include "vmm/tcg/guest/x86/system.h"

#include <array>

namespace vmm::tcg::x86 {

namespace {

// Field offsets of the two TSS forms (SDM vol. 3 figures 7-2 and 7-10).
struct Layout {
    unsigned size, limit, eip, selectors, selector_step, selector_count, ldt;
};
constexpr Layout layout32{4, 0x67, 0x20, 0x48, 4, 6, 0x60}, layout16{2, 0x2b, 0x0e, 0x22, 2, 4, 0x2a};

struct Image {
    std::uint32_t cr3 = 0, eip = 0, eflags = 0;
    std::array<std::uint32_t, 8> gpr{};
    std::array<std::uint16_t, 6> selectors{};
    std::uint16_t ldt = 0;
    std::uint16_t trap = 0; // 32-bit only: bit 0 is T
};

bool read_image(X86Context& c, std::uint64_t base, Layout const& l, Image& image) {
    auto get = [&](unsigned offset, void* to, unsigned size) {
        return c.mmu->read(base + offset, size, to, View::kernel_smap);
    };
    if (l.size == 4 && !get(0x1c, &image.cr3, 4)) return false;
    if (!get(l.eip, &image.eip, l.size) || !get(l.eip + l.size, &image.eflags, l.size)) return false;
    for (unsigned i = 0; i < 8; ++i)
        if (!get(l.eip + l.size * (2 + i), &image.gpr[i], l.size)) return false;
    for (unsigned i = 0; i < l.selector_count; ++i)
        if (!get(l.selectors + l.selector_step * i, &image.selectors[i], 2)) return false;
    if (l.size == 4 && !get(0x64, &image.trap, 2)) return false;
    return get(l.ldt, &image.ldt, 2);
}

bool write_image(X86Context& c, std::uint64_t base, Layout const& l, std::uint64_t rip, std::uint64_t flags) {
    State const& s = c.state;
    auto put = [&](unsigned offset, std::uint64_t v, unsigned size) {
        return c.mmu->write(base + offset, size, &v, View::kernel_smap);
    };
    if (!c.mmu->probe_write(base + l.eip, l.selectors + l.selector_step * l.selector_count - l.eip, View::kernel_smap))
        return false;
    if (!put(l.eip, rip, l.size) || !put(l.eip + l.size, flags, l.size)) return false;
    for (unsigned i = 0; i < 8; ++i)
        if (!put(l.eip + l.size * (2 + i), s.gpr[i], l.size)) return false;
    for (unsigned i = 0; i < l.selector_count; ++i)
        if (!put(l.selectors + l.selector_step * i, s.seg[i].selector, 2)) return false;
    return true;
}

// Loads LDTR and the segment registers of the new task; faults are #TS (or #NP, #SS) in its context.
void load_segments(X86Context& c, Image const& image) {
    State& s = c.state;
    Descriptor d;
    if (!is_null(image.ldt)) {
        if (image.ldt & 4) return raise_selector(c, vec::ts, image.ldt);
        if (!read_descriptor(c, image.ldt, d, vec::ts)) return;
        if (!d.system() || d.type() != descriptor_type::ldt || !d.present())
            return raise_selector(c, vec::ts, image.ldt);
        s.seg[ldtr] = make_segment(image.ldt, d);
    }
    if (s.v8086()) {
        for (unsigned i = es; i <= gs; ++i) load_real_segment(s, Seg(i), image.selectors[i]);
        return;
    }
    std::uint16_t code = image.selectors[cs];
    unsigned cpl = rpl(code);
    if (is_null(code)) return c.raise(vec::ts, 0);
    if (!read_descriptor(c, code, d, vec::ts)) return;
    if (!d.code() || (d.conforming() ? d.dpl() > cpl : d.dpl() != cpl)) return raise_selector(c, vec::ts, code);
    if (!d.present()) return raise_selector(c, vec::np, code);
    if (!set_accessed(c, code, d)) return;
    s.seg[cs] = make_segment(code, d);
    s.seg[ss] = null_segment(image.selectors[ss], cpl);
    if (!check_stack_segment(c, image.selectors[ss], cpl, vec::ts, 0, s.seg[ss])) return;
    for (Seg which : {es, ds, fs, gs}) {
        if (load_segment_register(c, which, image.selectors[which])) continue;
        if (c.fault.vector == vec::gp) c.fault.vector = vec::ts;
        return;
    }
    if (s.rip > s.seg[cs].limit) raise_gp(c);
}

} // namespace

bool switch_through_gate(X86Context& c, std::uint16_t tss_selector, TaskSwitch why, std::uint64_t next_rip,
                         std::optional<std::uint32_t> error, unsigned ext) {
    if (!is_null(tss_selector) && !(tss_selector & 4)) return switch_task(c, tss_selector, why, next_rip, error, ext);
    raise_selector(c, vec::gp, tss_selector, ext);
    return false;
}

bool switch_task(X86Context& c, std::uint16_t selector, TaskSwitch why, std::uint64_t next_rip,
                 std::optional<std::uint32_t> error, unsigned ext) {
    State& s = c.state;
    Descriptor d;
    std::uint8_t vector = why == TaskSwitch::iret ? vec::ts : vec::gp;
    if (!read_descriptor(c, selector, d, vector, ext)) return false;
    bool nests = why == TaskSwitch::call || why == TaskSwitch::gate, busy_wanted = why == TaskSwitch::iret;
    if (!d.system() || (d.type() & 5) != 1 || bool(d.type() & 2) != busy_wanted)
        return raise_selector(c, vector, selector, ext), false;
    if (!d.present()) return raise_selector(c, vec::np, selector, ext), false;
    Layout const &to = d.type() & 8 ? layout32 : layout16, &old = s.seg[tr].attributes & 8 ? layout32 : layout16;
    if (d.limit() < to.limit) return raise_selector(c, vec::ts, selector, ext), false;
    Image image;
    if (!read_image(c, d.base(), to, image)) return false;
    std::uint64_t flags = c.rflags();
    if (why == TaskSwitch::iret) flags &= ~flag::nt;
    std::uint16_t old_tr = s.seg[tr].selector;
    if (!write_image(c, s.seg[tr].base, old, next_rip, flags)) return false;
    if (!nests) {
        Descriptor previous;
        if (!read_descriptor(c, old_tr, previous, vec::ts) ||
            !write_descriptor_high(c, old_tr, previous.high & ~0x200u))
            return false;
    }
    if (nests && !c.mmu->store_system(d.base(), old_tr)) return false;
    if (!busy_wanted && !write_descriptor_high(c, selector, d.high | 0x200)) return false;
    // The new task begins here; faults from now on are its own.
    d.high |= 0x200;
    s.seg[tr] = make_segment(selector, d);
    s.cr0 |= cr0::ts;
    if (to.size == 4 && (s.cr0 & cr0::pg)) c.mmu->set_cr3(image.cr3, false);
    for (unsigned i = 0; i < 8; ++i) s.gpr[i] = to.size == 4 ? image.gpr[i] : 0xffff0000 | image.gpr[i];
    s.rip = image.eip;
    std::uint64_t new_flags = to.size == 4 ? image.eflags & 0x3f7fd7 : image.eflags & 0x7fd7;
    c.set_rflags(new_flags | (nests ? flag::nt : 0));
    s.dr7 &= ~std::uint64_t(0x155); // local breakpoints end with the task
    s.seg[ldtr] = null_segment(image.ldt);
    load_segments(c, image);
    if (error && !c.faulted()) {
        Stack stack(c);
        if (stack.push(to.size, *error)) stack.commit();
    }
    if ((image.trap & 1) && !c.faulted()) { // a debug trap before the task's first instruction (SDM vol. 3 17.3.1.5)
        s.dr6 |= 1 << 15;
        c.raise(vec::db);
    }
    if (c.faulted()) {
        c.fault.in_new_task = true;
        c.fault.rip = s.rip;
    }
    update_mode(c);
    return true;
}

} // namespace vmm::tcg::x86
