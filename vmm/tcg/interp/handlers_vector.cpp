// Vector operations: the function table of vec_ops.h behind handlers.
#include "vmm/tcg/interp/code.h"
#include "vmm/tcg/ir/vec_ops.h"

namespace vmm::tcg::interp {

using namespace ir;

namespace {

// Code::imm: bits 0-7 imm8, 8-23 the VecOp, 24 sets_flags, 25 v256.
template <bool wide> Code const* vector_op(EngineContext& e, Code const* c) {
    VecOp op = VecOp(c->imm >> 8 & 0xffff);
    VecEnv env{.mxcsr = *e.fp_control};
    run_vec(op, wide ? 32 : 16, c->dst, c->a, c->b, c->c, std::uint8_t(c->imm), env);
    *e.fp_control = env.mxcsr;
    return c + 1;
}

Code const* to_integer(EngineContext& e, Code const* c) {
    VecOp op = VecOp(c->imm >> 8 & 0xffff);
    VecEnv env{.mxcsr = *e.fp_control};
    std::uint64_t value = 0;
    run_vec(op, c->imm >> 25 & 1 ? 32 : 16, &value, c->a, c->b, c->c, std::uint8_t(c->imm), env);
    *e.fp_control = env.mxcsr;
    if (c->imm >> 24 & 1) set_cc_raw(e, env.flags);
    if (c->dst) at<std::uint64_t>(c->dst) = value;
    return c + 1;
}

} // namespace

std::uint64_t vector_immediate(Inst const& inst, bool wide) {
    return std::uint8_t(inst.imm) | std::uint64_t(inst.vec_op) << 8 | std::uint64_t(inst.sets_flags) << 24 |
           std::uint64_t(wide) << 25;
}

Handler vector_handler(Inst const& inst, bool wide) {
    switch (inst.op) {
    case Opcode::vec:
    case Opcode::gpr_to_vec: return wide ? vector_op<true> : vector_op<false>;
    case Opcode::vec_to_gpr: return to_integer;
    default: return nullptr;
    }
}

} // namespace vmm::tcg::interp
