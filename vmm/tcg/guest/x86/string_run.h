// StringRun: one execution of a repeated string instruction: its registers, segments and when to stop.
#pragma once
#include "vmm/tcg/guest/x86/guest_memory.h"
#include "vmm/tcg/guest/x86/string_op.h"

#include <algorithm>

namespace vmm::tcg::x86 {

inline constexpr std::uint64_t string_page_bytes = 4096;

// One execution of a string instruction.
class StringRun {
public:
    StringRun(X86Context& context, std::uint64_t descriptor, std::uint64_t own_address)
        : c(context), op(StringOp::from(descriptor)), own_address_(own_address) {
        mask_ = op.address_bytes == 8 ? ~std::uint64_t(0) : (std::uint64_t(1) << (8 * op.address_bytes)) - 1;
    }

    X86Context& c;
    StringOp const op;

    std::uint64_t index(Gpr r) const { return c.state.gpr[r] & mask_; }
    std::uint64_t remaining() const { return op.repeat == Repeat::once ? once_left_ : index(rcx); }
    bool backward() const { return c.state.rflags & flag::df; }
    Seg source_segment() const { return Seg(op.segment); }

    // Moves index register r past `elements` elements.
    void advance(Gpr r, std::uint64_t elements) {
        std::uint64_t const bytes = elements * op.bytes;
        set(r, backward() ? index(r) - bytes : index(r) + bytes);
    }
    void count_down(std::uint64_t elements) {
        if (op.repeat == Repeat::once)
            once_left_ = 0;
        else
            set(rcx, index(rcx) - elements);
    }

    // How many of `elements` elements at r in segment s form a run: ascending, in one page, within address width and
    // segment. 0: handle one element by itself.
    std::uint64_t run_length(Seg s, Gpr r, std::uint64_t elements, bool write) const {
        if (backward() || c.mode().is(Mode::single)) return 0;
        std::uint64_t const offset = index(r),
                            to_page_end = string_page_bytes - (linear(s, r) & (string_page_bytes - 1));
        elements = std::min(elements, to_page_end / op.bytes);
        if (mask_ - offset < string_page_bytes) elements = std::min(elements, (mask_ - offset) / op.bytes);
        if (!elements || !segment_allows(c, s, offset, elements * op.bytes, write)) return 0;
        return elements;
    }
    std::uint64_t linear(Seg s, Gpr r) const { return segment_linear(c, s, index(r)); }

    // Whether one element at r may be accessed; raises the fault if not.
    bool check(Seg s, Gpr r, bool write) {
        if (segment_allows(c, s, index(r), op.bytes, write)) return true;
        c.raise(s == ss ? vec::ss : vec::gp, 0);
        return false;
    }

    // After progress: true to go on. When interrupted, the instruction will start again with what is left.
    bool proceed() {
        if (c.faulted() || !remaining()) return false;
        if (!c.mode().is(Mode::single) && !c.engine.exit_request.load(std::memory_order_relaxed)) return true;
        c.state.rip = own_address_;
        return false;
    }

private:
    void set(Gpr r, std::uint64_t v) {
        std::uint64_t& full = c.state.gpr[r];
        if (op.address_bytes == 2)
            full = (full & ~mask_) | (v & mask_);
        else
            full = v & mask_;
    }

    std::uint64_t own_address_, mask_, once_left_ = 1;
};

// Calls f with a value of the element's type.
template <class F> std::uint64_t by_element(std::uint64_t descriptor, F f) {
    switch (StringOp::from(descriptor).bytes) {
    case 1: f(std::uint8_t{}); break;
    case 2: f(std::uint16_t{}); break;
    case 4: f(std::uint32_t{}); break;
    default: f(std::uint64_t{}); break;
    }
    return 0;
}

} // namespace vmm::tcg::x86
