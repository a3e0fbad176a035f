// Descriptors, segment register loads and stacks: what far transfers, event delivery and task switches share.
#pragma once
#include "vmm/tcg/guest/x86/context.h"
#include "vmm/tcg/guest/x86/mmu.h"

#include <cstdint>

namespace vmm::tcg::x86 {

// System descriptor types (SDM vol. 3 table 3-2).
namespace descriptor_type {
inline constexpr unsigned tss16 = 1, ldt = 2, tss16_busy = 3, call16 = 4, task = 5, interrupt16 = 6, trap16 = 7,
                          tss32 = 9, tss32_busy = 11, call32 = 12, interrupt32 = 14, trap32 = 15;
}

// Eight bytes of a descriptor table; the upper eight of 16-byte descriptors where they matter.
struct Descriptor {
    std::uint32_t low = 0, high = 0;
    std::uint64_t upper = 0;

    std::uint16_t attributes() const { return std::uint16_t(high >> 8) & 0xf0ff; }
    unsigned type() const { return high >> 8 & 15; }
    bool system() const { return !(high & 0x1000); }
    bool code() const { return (high & 0x1800) == 0x1800; }
    bool conforming() const { return code() && (high & 0x400); }
    bool readable() const { return !code() || (high & 0x200); }
    bool writable_data() const { return (high & 0x1a00) == 0x1200; }
    unsigned dpl() const { return high >> 13 & 3; }
    bool present() const { return high & 0x8000; }
    bool long_code() const { return high & 0x200000; }
    bool big() const { return high & 0x400000; }
    std::uint32_t base() const { return low >> 16 | (high & 0xff) << 16 | (high & 0xff000000); }
    std::uint32_t limit() const {
        std::uint32_t v = (low & 0xffff) | (high & 0xf0000);
        return high & 0x800000 ? v << 12 | 0xfff : v;
    }
    // Gates.
    std::uint16_t gate_selector() const { return std::uint16_t(low >> 16); }
    std::uint64_t gate_offset(bool wide) const {
        std::uint64_t v = (low & 0xffff) | (high & 0xffff0000);
        return wide ? v | upper << 32 : v;
    }
};

constexpr bool is_null(std::uint16_t selector) { return !(selector & ~3); }
constexpr unsigned rpl(std::uint16_t selector) { return selector & 3; }
// Records `vector` with the selector as error code; `ext` is its bit 0.
void raise_selector(X86Context& c, std::uint8_t vector, std::uint16_t selector, unsigned ext = 0);

// Reads the descriptor of a selector that is not null. Outside its table: `vector` with the selector.
bool read_descriptor(X86Context& c, std::uint16_t selector, Descriptor& d, std::uint8_t vector = vec::gp,
                     unsigned ext = 0);
// Reads the second half of a 16-byte (long mode system) descriptor into d.upper and checks its type field to be 0.
bool read_upper(X86Context& c, std::uint16_t selector, Descriptor& d, unsigned ext = 0);
// Sets the accessed bit in memory (and in d) where it is clear.
bool set_accessed(X86Context& c, std::uint16_t selector, Descriptor& d);
// Rewrites the second dword of a descriptor: TSS busy bits.
bool write_descriptor_high(X86Context& c, std::uint16_t selector, std::uint32_t high);
Segment make_segment(std::uint16_t selector, Descriptor const& d);
// A null selector's register; keeps the privilege level where it is the CPL (SS).
Segment null_segment(std::uint16_t selector, unsigned dpl = 0);
// What a segment register load does in real (`vm` false) and virtual-8086 mode.
void load_real_segment(State& s, Seg which, std::uint16_t selector);

// MOV, POP, LxS to ES, SS, DS, FS, GS, every mode; false with the fault recorded. No mode update, no shadow.
bool load_segment_register(X86Context& c, Seg which, std::uint16_t selector);
// Checks a stack segment for privilege `cpl`; faults with `vector` (#TS or #GP), not present: #SS.
bool check_stack_segment(X86Context& c, std::uint16_t selector, unsigned cpl, std::uint8_t vector, unsigned ext,
                         Segment& out);
// On a return to an outer privilege: data segments too privileged for it become null.
void drop_inaccessible_segments(State& s, unsigned cpl);

// A stack being pushed to or popped from; the registers change only at commit. `ext` goes into #SS error codes.
class Stack {
public:
    // `width`: 2, 4 or 8 bytes of stack pointer used.
    Stack(X86Context& c, Segment const& segment, std::uint64_t sp, unsigned width, unsigned cpl, std::uint32_t error);
    // The current one.
    explicit Stack(X86Context& c);
    bool push(unsigned size, std::uint64_t value);
    bool pop(unsigned size, std::uint64_t& value);
    // Reads without moving, at `offset` bytes above the pointer.
    bool peek(unsigned offset, unsigned size, std::uint64_t& value);
    void skip(std::uint64_t bytes) { sp_ = (sp_ & ~mask_) | ((sp_ + bytes) & mask_); }
    std::uint64_t pointer() const { return sp_; }
    // Stores the pointer to RSP, as wide as the stack is.
    void commit() { c_.state.gpr[rsp] = sp_; }

private:
    bool locate(std::uint64_t sp, unsigned size, std::uint64_t& va);
    X86Context& c_;
    Segment segment_;
    std::uint64_t sp_, mask_;
    View view_;
    std::uint32_t error_;
    bool wide_;
};
View view_for(State const& s, unsigned cpl);
// Whether [offset, offset+size) lies in the segment, expand-down included.
bool within_limit(Segment const& s, std::uint64_t offset, unsigned size);

// Stack pointer of an inner privilege from the current TSS (32 or 16 bits).
bool inner_stack(X86Context& c, unsigned cpl, unsigned ext, Segment& ss_out, std::uint64_t& sp);
// RSP0-2 (index 0-2) or IST1-7 (index 2 + ist) of the 64-bit TSS.
bool inner_stack64(X86Context& c, unsigned index, unsigned ext, std::uint64_t& sp);

} // namespace vmm::tcg::x86
