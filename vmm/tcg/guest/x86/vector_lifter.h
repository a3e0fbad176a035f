// Private to the lift_vector*.cpp files: operands of vector instructions as IR values, and the checks all of them
// share.
#pragma once
#include "vmm/tcg/guest/x86/lifter.h"
#include "vmm/tcg/ir/vec_ops.h"

#include <cstddef>

namespace vmm::tcg::x86 {

using ir::VecOp;

namespace slot {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
// MM0-7 are the significands of R0-7.
constexpr std::size_t mm(unsigned index) { return x87 + offsetof(X87, r) + sizeof(X87::Register) * index; }
constexpr std::size_t mm_exponent(unsigned index) { return mm(index) + offsetof(X87::Register, sign_exponent); }
inline constexpr std::size_t fcw = x87 + offsetof(X87, fcw), fsw = x87 + offsetof(X87, fsw),
                             fpu_tags = x87 + offsetof(X87, tags);
#pragma GCC diagnostic pop
} // namespace slot

class VectorLifter {
public:
    explicit VectorLifter(Lifter& lifter) : l(lifter), b(lifter.b) {}

    Lifter& l;
    Builder& b;

    bool vex() const { return l.d.vex(); }
    bool is_mmx(unsigned i) const {
        return l.is_register(i) && ZydisRegisterGetClass(l.operand(i).reg.value) == ZYDIS_REGCLASS_MMX;
    }
    bool is_gpr(unsigned i) const {
        auto c = l.is_register(i) ? ZydisRegisterGetClass(l.operand(i).reg.value) : ZYDIS_REGCLASS_INVALID;
        return c == ZYDIS_REGCLASS_GPR32 || c == ZYDIS_REGCLASS_GPR64;
    }
    bool any_mmx() const {
        for (unsigned i = 0; i < l.operand_count(); i++)
            if (is_mmx(i)) return true;
        return false;
    }
    // v256 when any register operand is a YMM, else v128.
    Type widest() const;
    Type register_type(unsigned i) const { return l.operand(i).size == 256 ? Type::v256 : Type::v128; }
    unsigned number(unsigned i) const { return l.register_number(i); }

    // #UD and #NM as the current mode demands. False: undefined; also ends the block when it raised something.
    enum class Gate : std::uint8_t { open, undefined, raised };
    Gate sse_gate();
    Gate mmx_gate(); // also #MF: call before any load

    // A source: a register, or memory of the operand's own size, zero-extended when that is under 16 bytes.
    ValueId source(unsigned i, std::uint8_t attributes);
    ValueId source(unsigned i) { return source(i, vex() ? 0 : std::uint8_t(ir::mem_aligned)); }
    void result(unsigned i, ValueId v) { l.put_xmm(number(i), v, vex()); }

    // MMX registers as v128 values with the upper half 0. mmx_result also marks the register file as in MMX use.
    ValueId mmx_source(unsigned i);
    void enter_mmx();
    void mmx_result(unsigned i, ValueId v);

    ValueId vec(VecOp op, ValueId a, ValueId second = none, std::int64_t imm = 0, Type t = Type::v128,
                ValueId third = none) {
        return b.emit(
            {.op = Opcode::vec, .type = t, .vec_op = std::uint16_t(op), .a = a, .b = second, .c = third, .imm = imm});
    }
    ValueId to_gpr(VecOp op, Type t, ValueId a, std::int64_t imm = 0) {
        return b.emit({.op = Opcode::vec_to_gpr, .type = t, .vec_op = std::uint16_t(op), .a = a, .imm = imm});
    }
    ValueId from_gpr(VecOp op, ValueId a, ValueId integer, std::int64_t imm = 0) {
        return b.emit({.op = Opcode::gpr_to_vec,
                       .type = Type::v128,
                       .vec_op = std::uint16_t(op),
                       .a = a,
                       .b = b.zext(Type::i64, integer),
                       .imm = imm});
    }
    // An integer (i8..i64) as the low element of an otherwise zero vector.
    ValueId widen(ValueId integer) { return from_gpr(VecOp::movq_from_gpr, none, integer); }

    // Brackets an operation that may set MXCSR flags: with an exception unmasked, the flags are collected apart and
    // checked before the result is written.
    ValueId begin_checked(bool floating);
    void end_checked(ValueId saved);
    // The same where `op` gave `result`, which may be tiny.
    void end_checked(ValueId saved, VecOp op, ValueId result);
};

// Moves, merges, state: lift_vector_move.cpp, lift_vector_state.cpp. `known` is false when the mnemonic is not theirs.
bool lift_vector_move(VectorLifter& v, bool& known);
bool lift_vector_state(VectorLifter& v, bool& known);
// Instructions done by helpers: string compares, masked moves, gathers (lift_vector_helped.cpp).
bool lift_vector_helped(VectorLifter& v, bool& known);

} // namespace vmm::tcg::x86
