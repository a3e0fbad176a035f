// Segment and table register instructions, descriptor queries, software interrupts.
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/segments.h"
#include "vmm/tcg/guest/x86/system.h"

#include <cstring>

namespace vmm::tcg::x86 {

namespace {

bool umip(X86Context& c) {
    if (!(c.state.cr4 & cr4::umip) || current_cpl(c.state) == 0) return false;
    raise_gp(c);
    return true;
}

// MOV/POP to a segment register with its shadow and mode update.
bool load_and_update(X86Context& c, Seg which, std::uint16_t selector) {
    if (!load_segment_register(c, which, selector)) return false;
    // Of several in a row only the first one has it (SDM vol. 3 6.8.3); an STI before does not take it away.
    if (which == ss && !c.state.debug_shadow) c.state.interrupt_shadow = c.state.debug_shadow = c.shadow_begun = true;
    update_mode(c);
    return true;
}

void load_table(X86Context& c, TableRegister& t, std::uint64_t va, std::uint64_t base_size) {
    std::uint8_t bytes[10] = {};
    if (!c.mmu->read(va, base_size == 8 ? 10 : 6, bytes, c.mmu->view())) return;
    std::uint64_t base = 0;
    std::memcpy(&base, bytes + 2, base_size);
    if (!is_canonical(c.state, base)) return raise_gp(c);
    std::memcpy(&t.limit, bytes, 2);
    t.base = base;
}

void store_table(X86Context& c, TableRegister const& t, std::uint64_t va, std::uint64_t base_size) {
    if (umip(c)) return;
    std::uint8_t bytes[10];
    std::memcpy(bytes, &t.limit, 2);
    std::memcpy(bytes + 2, &t.base, 8);
    c.mmu->write(va, unsigned(2 + base_size), bytes, c.mmu->view());
}

void load_system_segment(X86Context& c, Seg which, std::uint16_t selector) {
    State& s = c.state;
    if (is_null(selector)) {
        if (which == tr) return raise_gp(c);
        s.seg[ldtr] = null_segment(selector);
        return;
    }
    if (selector & 4) return raise_selector(c, vec::gp, selector);
    Descriptor d;
    if (!read_descriptor(c, selector, d)) return;
    bool free_tss = d.type() == descriptor_type::tss32 || (d.type() == descriptor_type::tss16 && !s.long_mode());
    if (!d.system() || !(which == tr ? free_tss : d.type() == descriptor_type::ldt))
        return raise_selector(c, vec::gp, selector);
    if (!d.present()) return raise_selector(c, vec::np, selector);
    if (s.long_mode() && !read_upper(c, selector, d)) return;
    Segment loaded = make_segment(selector, d);
    loaded.base |= d.upper << 32;
    if (!is_canonical(s, loaded.base)) return raise_selector(c, vec::gp, selector);
    if (which == tr) {
        if (!write_descriptor_high(c, selector, d.high | 0x200)) return;
        loaded.attributes |= 2;
    }
    s.seg[which] = loaded;
}

void set_zf(X86Context& c, bool on) {
    std::uint64_t image = cc_image(c.engine) & ~flag::zf;
    set_cc_raw(c.engine, on ? image | flag::zf : image);
}

// Reads a descriptor for LAR, LSL, VERR, VERW: a bad selector is no fault. False: not readable, or a fault is pending.
bool query(X86Context& c, std::uint16_t selector, Descriptor& d) {
    if (is_null(selector)) return false;
    if (!read_descriptor(c, selector, d)) {
        if (c.fault.vector == vec::gp) c.engine.fault_pending = 0;
        return false;
    }
    unsigned cpl = current_cpl(c.state);
    return d.conforming() || (d.dpl() >= cpl && d.dpl() >= rpl(selector));
}

bool system_type_in(State const& s, Descriptor const& d, unsigned legacy, unsigned wide) {
    return !d.system() || ((s.long_mode() ? wide : legacy) >> d.type() & 1);
}

} // namespace

namespace helper {

std::uint64_t raise_exception(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    if (b == ~std::uint64_t(0))
        c.raise(std::uint8_t(a));
    else
        c.raise(std::uint8_t(a), std::uint32_t(b));
    return 0;
}
// In virtual-8086 mode with VME, INT n may go straight to the 8086 program's own handler.
std::uint64_t interrupt(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    State& s = c.state;
    if (s.v8086()) {
        std::uint8_t redirect = 0xff;
        std::uint16_t map;
        if (s.cr4 & cr4::vme) {
            if (!c.mmu->load_system(s.seg[tr].base + 102, map)) return 0;
            if (!c.mmu->load_system(s.seg[tr].base + map - 32 + a / 8, redirect)) return 0;
        }
        if (!(redirect >> (a & 7) & 1)) {
            std::uint32_t entry;
            bool low = iopl(s) < 3;
            std::uint64_t flags = c.rflags();
            if (low) flags = ((flags & flag::vif) ? flags | flag::if_ : flags & ~flag::if_) | flag::iopl;
            if (!c.mmu->read(a * 4, 4, &entry, View::user)) return 0;
            Stack stack(c);
            if (!stack.push(2, flags) || !stack.push(2, s.seg[cs].selector) || !stack.push(2, s.rip)) return 0;
            stack.commit();
            s.rflags &= ~(flag::tf | flag::nt | flag::rf | (low ? flag::vif : flag::if_));
            load_real_segment(s, cs, std::uint16_t(entry >> 16));
            s.rip = entry & 0xffff;
            update_mode(c);
            return 0;
        }
        if (iopl(s) < 3) return raise_gp(c), 0;
    }
    c.record({.vector = std::uint8_t(a), .software = true, .length = std::uint8_t(b)});
    return 0;
}
std::uint64_t interrupt3(X86Context& c, std::uint64_t, std::uint64_t b, std::uint64_t) {
    c.record({.vector = vec::bp, .software = true, .length = std::uint8_t(b)});
    return 0;
}
std::uint64_t interrupt1(X86Context& c, std::uint64_t, std::uint64_t b, std::uint64_t) {
    c.record({.vector = vec::db, .software = true, .length = std::uint8_t(b), .privileged = true});
    return 0;
}
std::uint64_t into(X86Context& c, std::uint64_t, std::uint64_t b, std::uint64_t) {
    if (cc_image(c.engine) & flag::of) c.record({.vector = vec::of, .software = true, .length = std::uint8_t(b)});
    return 0;
}
std::uint64_t load_segment(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    load_and_update(c, Seg(a), std::uint16_t(b));
    return 0;
}
std::uint64_t load_far_pointer(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    if (!load_segment_register(c, Seg(a & 0xff), std::uint16_t(b))) return 0;
    std::uint64_t& r = c.state.gpr[a >> 8 & 15];
    unsigned size = unsigned(a >> 16);
    r = size == 2 ? (r & ~std::uint64_t(0xffff)) | (d & 0xffff) : size == 4 ? d & 0xffffffff : d;
    update_mode(c);
    return 0;
}
std::uint64_t pop_segment(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    Stack stack(c);
    std::uint64_t selector;
    if (!stack.peek(0, 2, selector) || !load_and_update(c, Seg(a), std::uint16_t(selector))) return 0;
    stack.skip(b);
    stack.commit();
    return 0;
}
std::uint64_t lgdt(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    load_table(c, c.state.gdtr, a, b);
    return 0;
}
std::uint64_t lidt(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    load_table(c, c.state.idtr, a, b);
    return 0;
}
std::uint64_t sgdt(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    store_table(c, c.state.gdtr, a, b);
    return 0;
}
std::uint64_t sidt(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    store_table(c, c.state.idtr, a, b);
    return 0;
}
std::uint64_t sldt(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    return umip(c) ? 0 : c.state.seg[ldtr].selector;
}
std::uint64_t str(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    return umip(c) ? 0 : c.state.seg[tr].selector;
}
std::uint64_t lldt(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    load_system_segment(c, ldtr, std::uint16_t(a));
    return 0;
}
std::uint64_t ltr(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    load_system_segment(c, tr, std::uint16_t(a));
    return 0;
}
std::uint64_t lar(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    Descriptor desc;
    bool ok = query(c, std::uint16_t(a), desc) && system_type_in(c.state, desc, 0x1a3e, 0x1a04);
    if (c.faulted()) return b;
    set_zf(c, ok);
    if (!ok) return b;
    std::uint64_t v = desc.high & 0xffff00;
    return d == 2 ? (b & ~std::uint64_t(0xffff)) | (v & 0xffff) : v;
}
std::uint64_t lsl(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    Descriptor desc;
    bool ok = query(c, std::uint16_t(a), desc) && system_type_in(c.state, desc, 0x0a0e, 0x0a04);
    if (c.faulted()) return b;
    set_zf(c, ok);
    if (!ok) return b;
    return d == 2 ? (b & ~std::uint64_t(0xffff)) | (desc.limit() & 0xffff) : desc.limit();
}
std::uint64_t verr(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    Descriptor d;
    bool ok = query(c, std::uint16_t(a), d) && !d.system() && d.readable();
    if (!c.faulted()) set_zf(c, ok);
    return 0;
}
std::uint64_t verw(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    Descriptor d;
    bool ok = query(c, std::uint16_t(a), d) && d.writable_data();
    if (!c.faulted()) set_zf(c, ok);
    return 0;
}

} // namespace helper
} // namespace vmm::tcg::x86
