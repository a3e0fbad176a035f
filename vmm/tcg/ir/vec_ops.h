// Vector operations of the IR: what each does (as a function) and how an x86-64 host encodes it. One table,
// vec_ops.inc.
#pragma once
#include <cstdint>

namespace vmm::tcg::ir {

enum class VecOp : std::uint16_t {
#define VEC(name, prefix, map, opcode, w, encodings, form, memory, feature, traits) name,
#include "vmm/tcg/ir/vec_ops.inc"
#undef VEC
    count
};

enum class VecPrefix : std::uint8_t { np, p66, pf3, pf2 };
enum class VecMap : std::uint8_t { m0f = 1, m38 = 2, m3a = 3 };
enum class VecEncodings : std::uint8_t { both, sse, vex };
// Operand places in the host instruction. "result" starts as a copy of a in two-operand (legacy) encodings.
enum class VecForm : std::uint8_t {
    unary,      // reg = result, rm = a
    binary,     // reg = result (a), rm = b; VEX: vvvv = a
    shift,      // by imm8: rm = result (a), reg = digit; VEX: vvvv = result, rm = a
    mask,       // binary with c as XMM0 (legacy) or in imm8[7:4] (VEX: 0f3a 4a blendvps, 4b blendvpd, 4c pblendvb)
    fused,      // reg = result (a), vvvv = b, rm = c
    to_gpr,     // Opcode::vec_to_gpr: reg = the general register, rm = a
    to_gpr_rm,  // Opcode::vec_to_gpr: rm = the general register, reg = a
    from_gpr,   // Opcode::gpr_to_vec: reg = result (a, or absent = 0 for movd/movq), rm = b, the general register
    compare,    // Opcode::vec_to_gpr with sets_flags: reg = a, rm = b; the result value is not used
    store_form, // rm = result, reg = a
};
enum class VecFeature : std::uint8_t { sse, sse2, sse3, ssse3, sse41, sse42, aes, pclmul, sha, avx, avx2, fma, f16c };

struct VecInfo {
    char const* name;
    VecPrefix prefix;
    VecMap map;
    std::uint8_t opcode, digit; // digit: VecForm::shift
    bool w;
    VecEncodings encodings;
    VecForm form;
    std::uint8_t memory; // bytes of an x86 memory source; 0 = the whole vector
    VecFeature feature;  // of the 128-bit form; 256-bit integer forms need AVX2
    bool floating;       // reads MXCSR, may set its flags
    bool underflows;     // a result may be tiny: unmasked underflow is raised even where that is exact
    bool immediate;
    bool crossing;     // a v256 is not two v128 done alike
    bool wide_source;  // 256-bit source, narrower result
    bool narrow_count; // b is 128 bits wide
};
VecInfo const& vec_info(VecOp op);

// What an operation sees and changes besides its operands.
struct VecEnv {
    std::uint32_t mxcsr = 0x1f80; // rounding, FTZ, DAZ are obeyed; exception flags are or-ed in; masks are ignored
    std::uint64_t flags = 0;      // set by VecForm::compare: the six arithmetic flags at their RFLAGS places
    unsigned bytes = 16;          // of the vector (16 or 32); set by run_vec
    unsigned lane = 0;            // which 128-bit lane this call is for; set by run_vec
};
// Operands are little-endian memory images of the vector (no alignment needed) or of a u64 for general registers
// (from_gpr: b; to_gpr: the result). `result` may be one of the operands.
using VecFn = void (*)(void* result, void const* a, void const* b, void const* c, std::uint8_t imm, VecEnv& env);
// By VecOp; most work on one 128-bit lane: use run_vec.
extern VecFn const vec_functions[];

// Executes `op`. bytes: size of the wider of result and sources (16 or 32). Absent operands may be null.
void run_vec(VecOp op, unsigned bytes, void* result, void const* a, void const* b, void const* c, std::uint8_t imm,
             VecEnv& env);

} // namespace vmm::tcg::ir
