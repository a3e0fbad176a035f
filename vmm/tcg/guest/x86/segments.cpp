#include "vmm/tcg/guest/x86/segments.h"

#include "vmm/tcg/guest/x86/system.h"

namespace vmm::tcg::x86 {

void raise_selector(X86Context& c, std::uint8_t vector, std::uint16_t selector, unsigned ext) {
    c.raise(vector, (selector & 0xfffcu) | ext);
}

// Linear address of a selector's descriptor, or false when it lies outside its table.
static bool descriptor_address(X86Context& c, std::uint16_t selector, unsigned bytes, std::uint64_t& va) {
    State const& s = c.state;
    std::uint64_t base = s.gdtr.base, limit = s.gdtr.limit;
    if (selector & 4) {
        if (s.seg[ldtr].unusable() || is_null(s.seg[ldtr].selector)) return false;
        base = s.seg[ldtr].base;
        limit = s.seg[ldtr].limit;
    }
    unsigned offset = selector & 0xfff8;
    if (offset + bytes - 1 > limit) return false;
    va = base + offset;
    return true;
}

bool read_descriptor(X86Context& c, std::uint16_t selector, Descriptor& d, std::uint8_t vector, unsigned ext) {
    std::uint64_t va, raw;
    if (!descriptor_address(c, selector, 8, va)) {
        raise_selector(c, vector, selector, ext);
        return false;
    }
    if (!c.mmu->load_system(va, raw)) return false;
    d = {std::uint32_t(raw), std::uint32_t(raw >> 32), 0};
    return true;
}

bool read_upper(X86Context& c, std::uint16_t selector, Descriptor& d, unsigned ext) {
    std::uint64_t va;
    if (!descriptor_address(c, selector, 16, va)) {
        raise_selector(c, vec::gp, selector, ext);
        return false;
    }
    if (!c.mmu->load_system(va + 8, d.upper)) return false;
    if (d.upper >> 40 & 0x1f) {
        raise_selector(c, vec::gp, selector, ext);
        return false;
    }
    d.upper &= 0xffffffff;
    return true;
}

bool write_descriptor_high(X86Context& c, std::uint16_t selector, std::uint32_t high) {
    std::uint64_t va;
    return descriptor_address(c, selector, 8, va) && c.mmu->store_system(va + 4, high);
}

bool set_accessed(X86Context& c, std::uint16_t selector, Descriptor& d) {
    if (d.high & 0x100) return true;
    d.high |= 0x100;
    return write_descriptor_high(c, selector, d.high);
}

Segment make_segment(std::uint16_t selector, Descriptor const& d) {
    return {.base = d.base(), .limit = d.limit(), .attributes = d.attributes(), .selector = selector};
}

Segment null_segment(std::uint16_t selector, unsigned dpl) {
    return {.base = 0, .limit = 0, .attributes = std::uint16_t(dpl << attr::dpl_shift), .selector = selector};
}

void load_real_segment(State& s, Seg which, std::uint16_t selector) {
    Segment& r = s.seg[which];
    r.selector = selector;
    r.base = std::uint64_t(selector) << 4;
    if (s.v8086()) {
        r.limit = 0xffff;
        r.attributes = attr::present | attr::s | attr::dpl | attr::writable | attr::accessed;
        return;
    }
    // Real mode keeps limit and width ("unreal mode"), but CS becomes writable data-like and everything privileged.
    r.attributes = std::uint16_t((r.attributes & (attr::db | attr::g)) | attr::present | attr::s | attr::writable |
                                 attr::accessed | (which == cs ? attr::code : 0));
    if (r.limit < 0xffff) r.limit = 0xffff;
}

bool check_stack_segment(X86Context& c, std::uint16_t selector, unsigned cpl, std::uint8_t vector, unsigned ext,
                         Segment& out) {
    if (is_null(selector)) {
        c.raise(vector, ext);
        return false;
    }
    Descriptor d;
    if (!read_descriptor(c, selector, d, vector, ext)) return false;
    if (rpl(selector) != cpl || d.dpl() != cpl || !d.writable_data()) {
        raise_selector(c, vector, selector, ext);
        return false;
    }
    if (!d.present()) {
        raise_selector(c, vec::ss, selector, ext);
        return false;
    }
    if (!set_accessed(c, selector, d)) return false;
    out = make_segment(selector, d);
    return true;
}

bool load_segment_register(X86Context& c, Seg which, std::uint16_t selector) {
    State& s = c.state;
    if (!s.protected_mode() || s.v8086()) {
        load_real_segment(s, which, selector);
        return true;
    }
    unsigned cpl = s.cpl();
    if (which == ss) {
        if (is_null(selector)) {
            if (!s.code64() || cpl == 3 || rpl(selector) != cpl) {
                raise_gp(c);
                return false;
            }
            s.seg[ss] = null_segment(selector, cpl);
            return true;
        }
        Segment loaded;
        if (!check_stack_segment(c, selector, cpl, vec::gp, 0, loaded)) return false;
        s.seg[ss] = loaded;
        return true;
    }
    if (is_null(selector)) {
        s.seg[which] = null_segment(selector);
        return true;
    }
    Descriptor d;
    if (!read_descriptor(c, selector, d)) return false;
    bool privileged = !d.conforming() && (d.dpl() < cpl || d.dpl() < rpl(selector));
    if (d.system() || !d.readable() || privileged) {
        raise_selector(c, vec::gp, selector);
        return false;
    }
    if (!d.present()) {
        raise_selector(c, vec::np, selector);
        return false;
    }
    if (!set_accessed(c, selector, d)) return false;
    s.seg[which] = make_segment(selector, d);
    return true;
}

void drop_inaccessible_segments(State& s, unsigned cpl) {
    for (Seg which : {es, ds, fs, gs}) {
        Segment& r = s.seg[which];
        bool conforming = (r.attributes & attr::code) && (r.attributes & attr::conforming);
        if (!r.unusable() && !conforming && r.dpl() < cpl) r = null_segment(0);
    }
}

View view_for(State const& s, unsigned cpl) {
    if (cpl == 3) return View::user;
    return (s.cr4 & cr4::smap) && !(s.rflags & flag::ac) ? View::kernel_smap : View::kernel;
}

bool within_limit(Segment const& s, std::uint64_t offset, unsigned size) {
    std::uint64_t last = offset + size - 1;
    if (!(s.attributes & attr::code) && (s.attributes & attr::expand_down) && (s.attributes & attr::s)) {
        std::uint64_t top = s.attributes & attr::db ? 0xffffffff : 0xffff;
        return offset > s.limit && last <= top;
    }
    return last <= s.limit;
}

Stack::Stack(X86Context& c, Segment const& segment, std::uint64_t sp, unsigned width, unsigned cpl, std::uint32_t error)
    : c_(c), segment_(segment), sp_(sp), mask_(width == 8   ? ~std::uint64_t(0)
                                               : width == 4 ? 0xffffffff
                                                            : 0xffff),
      view_(view_for(c.state, cpl)), error_(error), wide_(width == 8) {}

Stack::Stack(X86Context& c)
    : Stack(c, c.state.seg[ss], c.state.gpr[rsp],
            c.state.code64()                        ? 8
            : c.state.seg[ss].attributes & attr::db ? 4
                                                    : 2,
            current_cpl(c.state), 0) {}

bool Stack::locate(std::uint64_t sp, unsigned size, std::uint64_t& va) {
    sp &= mask_;
    bool ok = wide_ ? is_canonical(c_.state, sp) && is_canonical(c_.state, sp + size - 1)
                    : !segment_.unusable() && within_limit(segment_, sp, size);
    if (!ok) {
        c_.raise(vec::ss, error_);
        return false;
    }
    va = wide_ ? sp : (segment_.base + sp) & 0xffffffff;
    return true;
}

bool Stack::push(unsigned size, std::uint64_t value) {
    std::uint64_t sp = sp_ - size, va;
    if (!locate(sp, size, va) || !c_.mmu->write(va, size, &value, view_)) return false;
    sp_ = (sp_ & ~mask_) | (sp & mask_);
    return true;
}

bool Stack::peek(unsigned offset, unsigned size, std::uint64_t& value) {
    std::uint64_t va;
    value = 0;
    return locate(sp_ + offset, size, va) && c_.mmu->read(va, size, &value, view_);
}

bool Stack::pop(unsigned size, std::uint64_t& value) {
    if (!peek(0, size, value)) return false;
    skip(size);
    return true;
}

bool inner_stack(X86Context& c, unsigned cpl, unsigned ext, Segment& ss_out, std::uint64_t& sp) {
    Segment const& task = c.state.seg[tr];
    bool wide = task.attributes & 8;
    unsigned offset = wide ? 4 + 8 * cpl : 2 + 4 * cpl, bytes = wide ? 4 : 2;
    if (task.unusable() || offset + bytes + 1 > task.limit) {
        raise_selector(c, vec::ts, task.selector, ext);
        return false;
    }
    std::uint32_t pointer = 0;
    std::uint16_t selector;
    if (!c.mmu->read(task.base + offset, bytes, &pointer, View::kernel_smap) ||
        !c.mmu->load_system(task.base + offset + bytes, selector))
        return false;
    sp = pointer;
    return check_stack_segment(c, selector, cpl, vec::ts, ext, ss_out);
}

bool inner_stack64(X86Context& c, unsigned index, unsigned ext, std::uint64_t& sp) {
    Segment const& task = c.state.seg[tr];
    unsigned offset = index < 3 ? 4 + 8 * index : 36 + 8 * (index - 3);
    if (task.unusable() || offset + 7 > task.limit) {
        raise_selector(c, vec::ts, task.selector, ext);
        return false;
    }
    if (!c.mmu->load_system(task.base + offset, sp)) return false;
    if (!is_canonical(c.state, sp)) {
        c.raise(vec::ss, ext);
        return false;
    }
    return true;
}

} // namespace vmm::tcg::x86
