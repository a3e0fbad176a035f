// Argument encodings of the floating-point helpers, shared by the lifters and the helpers.
#pragma once
#include <cstdint>

namespace vmm::tcg::x86 {

struct X86Context;
// Defined with the system helpers: to be called after MXCSR's masks changed.
void update_mode(X86Context& c);

// xsave, xrstor: b = XsaveForm, plus xsave_wide for the REX.W forms.
enum class XsaveForm : std::uint8_t { save, optimized, compacted, restore };
inline constexpr std::uint64_t xsave_wide = 8;

// simd_check: b, the elements of the result to look at: their size in bytes and how many.
constexpr std::int64_t simd_elements(unsigned bytes, unsigned count) { return std::int64_t(bytes | count << 4); }

// x87 helpers' first argument: which instruction, where it is and which segment its operand lies in.
namespace x87_arg {
inline constexpr unsigned opcode_bits = 11; // FOP: low 3 bits of the first byte, then ModRM
inline constexpr unsigned segment_shift = 11, wide_shift = 14, offset_shift = 16;
constexpr std::int64_t make(unsigned fop, unsigned segment, bool wide, std::int32_t page_offset) {
    return std::int64_t(fop) | std::int64_t(segment) << segment_shift | std::int64_t(wide) << wide_shift |
           (std::int64_t(page_offset) << offset_shift);
}
} // namespace x87_arg

// pcmpstr: a = imm8 | kind | first XMM number << string_register_shift.
namespace pcmpstr_arg {
inline constexpr std::uint64_t mask_result = 1 << 8, explicit_length = 1 << 9, wide_length = 1 << 10, vex = 1 << 11;
inline constexpr unsigned register_shift = 12;
} // namespace pcmpstr_arg

// vector_mask_move, vector_gather: bits of the first argument.
namespace masked_arg {
inline constexpr std::uint64_t store = 1 << 0, wide_vector = 1 << 1;
inline constexpr unsigned element_shift = 2; // log2 of the element's bytes, 2 bits
inline constexpr unsigned data_shift = 4, mask_shift = 8, index_shift = 12, scale_shift = 16;
inline constexpr std::uint64_t index64 = 1 << 18;   // gathers: 64-bit indices
inline constexpr std::uint64_t address32 = 1 << 19; // gathers: the address wraps at 32 bits
inline constexpr std::uint64_t mmx = 1 << 20;       // MASKMOVQ
inline constexpr unsigned segment_shift = 21;       // gathers: 3 bits
} // namespace masked_arg

} // namespace vmm::tcg::x86
