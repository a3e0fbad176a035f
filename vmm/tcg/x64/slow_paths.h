// C++ that translated code calls when its inline sequences do not apply.
#pragma once
#include "vmm/tcg/context.h"
#include "vmm/tcg/ir/ir.h"

#include <cstdint>

namespace vmm::tcg::x64 {

// Bits of a read-modify-write request word.
constexpr std::uint32_t pack_rmw(ir::Inst const& n) { return std::uint32_t(n.op) | std::uint32_t(n.type) << 8; }

// The part of the frame slow paths see (frame.h: buffer, carry, image, keep0, keep1).
struct SlowFrame {
    std::uint64_t buffer[4];
    std::uint64_t carry, image, keep0, keep1;
};

// All return false when a fault was recorded. `word`: ExitWord.
extern "C" {
bool vmm_x64_load(EngineContext& e, std::uint64_t va, std::uint64_t word, SlowFrame& f);
bool vmm_x64_store(EngineContext& e, std::uint64_t va, std::uint64_t word, SlowFrame& f);
bool vmm_x64_load_for_write(EngineContext& e, std::uint64_t va, std::uint64_t word, SlowFrame& f);
// buffer[3] := host pointer or 0.
bool vmm_x64_rmw_pointer(EngineContext& e, std::uint64_t va, std::uint32_t size, SlowFrame& f);
// Any rmw_* or cmpxchg without a host pointer. buffer[0], [1]: operands b, c; carry. buffer[3] := old value, image.
bool vmm_x64_rmw(EngineContext& e, std::uint64_t va, std::uint32_t request, SlowFrame& f);
bool vmm_x64_alignment_fault(EngineContext& e, std::uint64_t va, std::uint32_t, SlowFrame& f);
// buffer[0] = high, [1] = low, [2] = divisor; request: log2 of the width in bytes | 4 for signed. buffer[0] :=
// quotient, [1] := remainder, or the divide fault.
bool vmm_x64_divide(EngineContext& e, std::uint64_t, std::uint32_t request, SlowFrame& f);
}

// A vector operation done in C++; operands are addresses.
struct VecCall {
    std::uint64_t result, a, b, c;
    std::uint32_t op, bytes;
    std::uint32_t imm, unused;
    std::uint64_t flags; // out
};
extern "C" bool vmm_x64_vector(EngineContext& e, std::uint64_t, std::uint32_t, SlowFrame& f);

} // namespace vmm::tcg::x64
