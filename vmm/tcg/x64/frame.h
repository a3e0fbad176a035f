// Frame: the host stack while translated code runs, relative to rsp inside a block.
#pragma once
#include <cstdint>

namespace vmm::tcg::x64::frame {

inline constexpr std::int32_t buffer = 0; // 32 bytes: data of slow memory accesses
inline constexpr std::int32_t carry = 32; // CF kept across a TLB check
inline constexpr std::int32_t image = 40; // flags of a slow read-modify-write
inline constexpr std::int32_t keep0 = 48; // host registers an operation needs for itself
inline constexpr std::int32_t keep1 = 56;
inline constexpr std::int32_t mxcsr = 64;
inline constexpr std::int32_t group = 72;        // addend of the group of accesses at hand
inline constexpr std::int32_t vec_call = 80;     // VecCall
inline constexpr std::int32_t flags = 144;       // RFLAGS kept across an access, as LAHF and SETO give them
inline constexpr std::int32_t registers = 152;   // the general registers by number, where C++ is to see them
inline constexpr std::int32_t shift_carry = 280; // one byte: CF of a shift whose other flags its result tells
inline constexpr std::int32_t xmm_save = 288;    // 16 x 32 bytes
inline constexpr std::int32_t spills = xmm_save + 16 * 32;
inline constexpr unsigned max_spills = 1024; // 8 bytes each
inline constexpr std::int32_t vector_spills = spills + 8 * std::int32_t(max_spills);
inline constexpr unsigned max_vector_spills = 512; // 32 bytes each
inline constexpr std::int32_t size = vector_spills + 32 * std::int32_t(max_vector_spills);
// What the entry code subtracts after six pushes, so that rsp is 16-byte aligned in blocks.
inline constexpr std::int32_t allocation = size + 8;
static_assert(size % 16 == 0);

} // namespace vmm::tcg::x64::frame
