// Emitter: vector values. Guest registers stay in the context (every put is stored at once); values are kept in host
// registers as long as there is room.
#include "vmm/tcg/x64/emitter.h"
#include "vmm/tcg/x64/slow_paths.h"

#include <algorithm>
#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

bool Emitter::emit_vector(std::uint32_t i) {
    switch (inst(i).op) {
    case Opcode::vec: return emit_vec(i), true;
    case Opcode::vec_to_gpr: return emit_vec_to_gpr(i), true;
    case Opcode::gpr_to_vec: return emit_gpr_to_vec(i), true;
    default: return false;
    }
}

// --- registers

Assembler::Rm Emitter::home_rm(VectorValue const& v) {
    return as_.in_memory(v.home == VectorValue::in_slot ? host::rbp : host::rsp, v.disp);
}

void Emitter::drop_xmm(int x) {
    ValueId id = xmm_owner_[unsigned(x)];
    if (id == none) return;
    VectorValue& v = vectors_[id];
    if (v.home == VectorValue::no_home) {
        if (!free_vector_frames_.empty()) {
            v.disp = free_vector_frames_.back();
            free_vector_frames_.pop_back();
        } else {
            VMM_ASSERT(next_vector_frame_ < frame::max_vector_spills);
            v.disp = frame::vector_spills + 32 * std::int32_t(next_vector_frame_++);
        }
        v.home = VectorValue::in_frame;
        as_.vector_store(size_of(inst(id).type), home_rm(v), x);
    }
    v.xmm = -1;
    xmm_owner_[unsigned(x)] = none;
}

int Emitter::take_xmm() {
    int best = -1;
    for (int x = 0; x < 16; ++x) {
        if (xmm_locked_ >> x & 1) continue;
        if (xmm_owner_[unsigned(x)] == none) {
            xmm_locked_ |= 1u << x;
            return x;
        }
        auto last = [&](int r) { return plan_.values[xmm_owner_[unsigned(r)]].last_use; };
        if (best < 0 || last(x) > last(best)) best = x;
    }
    VMM_ASSERT(best >= 0);
    drop_xmm(best);
    xmm_locked_ |= 1u << best;
    return best;
}

int Emitter::xmm_of(ValueId id) {
    ValueId r = root(id);
    Type t = inst(r).type;
    if (t <= Type::i64) { // an integer as the low element
        int x = take_xmm();
        if (in_memory(id) && t >= Type::i32) {
            as_.vector_load(size_of(t), x,
                            as_.in_memory(val(id).place == Place::slot ? host::rbp : host::rsp, val(id).disp));
        } else {
            as_.vex(VecPrefix::p66, VecMap::m0f, 0x6e, t == Type::i64, false, x, 0, as_.in_register(reg_of(id)));
        }
        return x;
    }
    VectorValue& v = vectors_[r];
    if (v.xmm < 0) {
        VMM_ASSERT(v.home != VectorValue::no_home);
        int x = take_xmm();
        as_.vector_load(size_of(t), x, home_rm(v));
        v.xmm = std::int8_t(x);
        xmm_owner_[unsigned(x)] = r;
    }
    xmm_locked_ |= 1u << v.xmm;
    return v.xmm;
}

// An operand as register or memory; memory only for values not wanted again.
Assembler::Rm Emitter::vector_rm(ValueId id, unsigned bytes_read) {
    ValueId r = root(id);
    if (inst(r).type <= Type::i64) {
        if (in_memory(id) && size_of(inst(r).type) >= bytes_read && bytes_read)
            return as_.in_memory(val(id).place == Place::slot ? host::rbp : host::rsp, val(id).disp);
        return as_.in_register(xmm_of(id));
    }
    VectorValue const& v = vectors_[r];
    if (v.xmm < 0 && dies(id)) return home_rm(v);
    return as_.in_register(xmm_of(id));
}

void Emitter::define_vector(std::uint32_t i, int x) {
    vectors_[i] = {.xmm = std::int8_t(x)};
    xmm_owner_[unsigned(x)] = ValueId(i);
    live_vector_list_.push_back(ValueId(i));
}

void Emitter::release_vectors(std::uint32_t i) {
    auto release = [&](ValueId id) {
        if (id == none) return;
        ValueId r = root(id);
        if (inst(r).type < Type::v128 || plan_.values[r].last_use > i) return;
        VectorValue& v = vectors_[r];
        if (v.xmm >= 0 && xmm_owner_[unsigned(v.xmm)] == r) xmm_owner_[unsigned(v.xmm)] = none;
        if (v.home == VectorValue::in_frame) free_vector_frames_.push_back(v.disp);
        v = {};
        std::erase(live_vector_list_, r);
    };
    Inst const& n = inst(i);
    release(n.a), release(n.b), release(n.c);
    if (n.type >= Type::v128 && n.op != Opcode::put && n.op != Opcode::store && plan_.values[i].uses == 0)
        release(ValueId(i));
}

bool Emitter::live_vectors() const {
    return std::any_of(xmm_owner_.begin(), xmm_owner_.end(), [](ValueId v) { return v != none; });
}

// Before a call: nothing stays in registers, nor, if guest registers may change, in their slots.
void Emitter::spill_vectors(bool slots_change) {
    for (ValueId id : std::vector<ValueId>(live_vector_list_)) {
        VectorValue& v = vectors_[id];
        if (slots_change && v.home == VectorValue::in_slot) {
            xmm_of(id);
            v.home = VectorValue::no_home;
        }
        if (v.xmm >= 0) drop_xmm(v.xmm);
    }
    xmm_locked_ = 0;
}

// Before the slot is written: values that live there move out.
void Emitter::save_slot_vectors(std::int64_t offset, unsigned size, ValueId except) {
    for (ValueId id : live_vector_list_) {
        VectorValue& v = vectors_[id];
        if (v.home != VectorValue::in_slot || id == except) continue;
        if (offset >= v.disp + std::int64_t(size_of(inst(id).type)) || v.disp >= offset + std::int64_t(size)) continue;
        if (plan_.values[id].last_use > cur_) xmm_of(id);
        v.home = VectorValue::no_home;
    }
}

// --- slots

void Emitter::emit_vector_get(std::uint32_t i) {
    vectors_[i] = {.xmm = -1, .home = VectorValue::in_slot, .disp = std::int32_t(inst(i).imm)};
    live_vector_list_.push_back(ValueId(i));
}

void Emitter::emit_vector_put(std::uint32_t i) {
    Inst const& n = inst(i);
    ValueId r = root(n.a);
    int x = xmm_of(n.a);
    VectorValue& v = vectors_[r];
    bool there = v.home == VectorValue::in_slot && v.disp == n.imm;
    if (there) return;
    save_slot_vectors(n.imm, size_of(n.type), none);
    as_.vector_store(size_of(n.type), as_.in_memory(host::rbp, std::int32_t(n.imm)), x);
    if (v.home == VectorValue::no_home && inst(r).type == n.type) {
        v.home = VectorValue::in_slot;
        v.disp = std::int32_t(n.imm);
    }
}

// --- operations

static bool register_only(VecOp op) {
    // Their memory forms do something else.
    return op == VecOp::movss || op == VecOp::movsd || op == VecOp::movhlps || op == VecOp::insertps;
}

void Emitter::emit_vec(std::uint32_t i) {
    Inst const& n = inst(i);
    VecOp op = VecOp(n.vec_op);
    VecInfo const& info = vec_info(op);
    if (!(options_.features >> unsigned(info.feature) & 1)) return emit_vec_call(i);
    if (info.encodings == VecEncodings::sse) return emit_vec_legacy(i, info);
    bool wide = n.type == Type::v256 || info.wide_source;
    auto encode = [&](std::uint8_t opcode, VecMap map, int reg_field, int vvvv, Assembler::Rm rm) {
        as_.vex(info.prefix, map, opcode, info.w, wide, reg_field, vvvv, rm);
    };
    unsigned bytes = info.memory ? info.memory : wide ? 32 : 16;
    auto source = [&](ValueId v) { return register_only(op) ? as_.in_register(xmm_of(v)) : vector_rm(v, bytes); };
    int d;
    switch (info.form) {
    case VecForm::unary: {
        auto rm = source(n.a);
        d = take_xmm();
        encode(info.opcode, info.map, d, 0, rm);
        break;
    }
    case VecForm::binary: {
        int a = xmm_of(n.a);
        auto rm = source(n.b);
        d = take_xmm();
        encode(info.opcode, info.map, d, a, rm);
        break;
    }
    case VecForm::shift: {
        int a = xmm_of(n.a);
        d = take_xmm();
        encode(info.opcode, info.map, info.digit, d, as_.in_register(a));
        break;
    }
    case VecForm::mask: {
        int a = xmm_of(n.a), c = xmm_of(n.c);
        auto rm = source(n.b);
        d = take_xmm();
        std::uint8_t opcode = op == VecOp::blendvps ? 0x4a : op == VecOp::blendvpd ? 0x4b : 0x4c;
        encode(opcode, VecMap::m3a, d, a, rm);
        as_.db(c << 4);
        break;
    }
    case VecForm::fused: {
        int a = xmm_of(n.a), b = xmm_of(n.b);
        auto rm = source(n.c);
        d = take_xmm();
        as_.vex(VecPrefix::np, VecMap::m0f, 0x28, false, wide, d, 0, as_.in_register(a));
        encode(info.opcode, info.map, d, b, rm);
        break;
    }
    default: { // store_form
        int a = xmm_of(n.a);
        d = take_xmm();
        encode(info.opcode, info.map, a, 0, as_.in_register(d));
        break;
    }
    }
    if (info.immediate) as_.db(std::uint8_t(n.imm));
    define_vector(i, d);
}

void Emitter::emit_vec_legacy(std::uint32_t i, VecInfo const& info) {
    Inst const& n = inst(i);
    bool with_mask = info.form == VecForm::mask; // c is implied to be in xmm0
    if (with_mask) {
        int c = xmm_of(n.c);
        if (c != 0) {
            drop_xmm(0);
            as_.vex(VecPrefix::np, VecMap::m0f, 0x28, false, false, 0, 0, as_.in_register(c));
        } else {
            drop_xmm(0); // the value stays in the register for this instruction
        }
        xmm_locked_ |= 1;
    }
    bool unary = info.form == VecForm::unary;
    int a = xmm_of(n.a), b = unary ? a : xmm_of(n.b), d = take_xmm();
    as_.vex(VecPrefix::np, VecMap::m0f, 0x28, false, false, d, 0, as_.in_register(a));
    as_.legacy(info.prefix, info.map, info.opcode, info.w, d, as_.in_register(b));
    if (info.immediate) as_.db(std::uint8_t(n.imm));
    define_vector(i, d);
}

void Emitter::emit_vec_to_gpr(std::uint32_t i) {
    Inst const& n = inst(i);
    VecInfo const& info = vec_info(VecOp(n.vec_op));
    if (!(options_.features >> unsigned(info.feature) & 1)) return emit_vec_call(i);
    bool wide = info.wide_source;
    auto encode = [&](int reg_field, Assembler::Rm rm) {
        as_.vex(info.prefix, info.map, info.opcode, info.w, wide, reg_field, 0, rm);
        if (info.immediate) as_.db(std::uint8_t(n.imm));
    };
    if (info.form == VecForm::compare) {
        clobber_flags();
        int a = xmm_of(n.a);
        encode(a, vector_rm(n.b, info.memory ? info.memory : wide ? 32 : 16));
        return define_flags(i);
    }
    if (info.form == VecForm::to_gpr) {
        auto rm = as_.in_register(xmm_of(n.a));
        int d = result_register(i);
        encode(d, rm);
        return finish_result(i, d);
    }
    int a = xmm_of(n.a);
    int d = result_register(i);
    encode(a, as_.in_register(d));
    finish_result(i, d);
}

void Emitter::emit_gpr_to_vec(std::uint32_t i) {
    Inst const& n = inst(i);
    VecInfo const& info = vec_info(VecOp(n.vec_op));
    if (!(options_.features >> unsigned(info.feature) & 1)) return emit_vec_call(i);
    int a = n.a == none ? 0 : xmm_of(n.a);
    Assembler::Rm rm;
    if (in_memory(n.b) && size_of(inst(root(n.b)).type) >= info.memory)
        rm = as_.in_memory(val(n.b).place == Place::slot ? host::rbp : host::rsp, val(n.b).disp);
    else
        rm = as_.in_register(reg_of(n.b));
    int d = take_xmm();
    as_.vex(info.prefix, info.map, info.opcode, info.w, false, d, a, rm);
    if (info.immediate) as_.db(std::uint8_t(n.imm));
    define_vector(i, d);
}

// --- what the host has no instruction for

void Emitter::vector_address(int r, ValueId id) {
    ValueId v = root(id);
    if (inst(v).type >= Type::v128) {
        if (vectors_[v].xmm >= 0) drop_xmm(vectors_[v].xmm);
        VectorValue const& home = vectors_[v];
        as_.lea(as_.r64(r), ptr[(home.home == VectorValue::in_slot ? rbp : rsp) + int(home.disp)]);
        return;
    }
    if (!in_memory(id)) { // one integer operand at most
        as_.mov(frame_at(Type::i64, frame::keep0), as_.r64(reg_of(id)));
        as_.lea(as_.r64(r), ptr[rsp + frame::keep0]);
        return;
    }
    as_.lea(as_.r64(r), memory_of(id, Type::i64));
}

void Emitter::emit_vec_call(std::uint32_t i) {
    Inst const& n = inst(i);
    bool to_vector = n.op != Opcode::vec_to_gpr;
    clobber_flags();
    take(host::r15);
    auto field = [&](std::size_t offset) { return frame::vec_call + std::int32_t(offset); };
    ValueId const operands[] = {n.a, n.b, n.c};
    std::size_t const places[] = {offsetof(VecCall, a), offsetof(VecCall, b), offsetof(VecCall, c)};
    bool wide = n.type == Type::v256;
    for (unsigned k = 0; k < 3; ++k) {
        as_.mov(r15d, 0);
        if (operands[k] != none) {
            wide = wide || inst(root(operands[k])).type == Type::v256;
            vector_address(host::r15, operands[k]);
        }
        as_.mov(frame_at(Type::i64, field(places[k])), r15);
    }
    as_.lea(r15, ptr[rsp + frame::buffer]);
    as_.mov(frame_at(Type::i64, field(offsetof(VecCall, result))), r15);
    as_.mov(frame_at(Type::i64, frame::buffer), 0);
    as_.mov(frame_at(Type::i32, field(offsetof(VecCall, op))), n.vec_op);
    as_.mov(frame_at(Type::i32, field(offsetof(VecCall, bytes))), wide ? 32 : 16);
    as_.mov(frame_at(Type::i32, field(offsetof(VecCall, imm))), std::uint32_t(n.imm) & 0xff);
    as_.call_to(thunks_.vector);
    if (to_vector) {
        int x = take_xmm();
        as_.vector_load(size_of(n.type), x, as_.in_memory(host::rsp, frame::buffer));
        return define_vector(i, x);
    }
    if (plan_.values[i].uses) {
        int d = result_register(i);
        as_.mov(as_.r64(d), frame_at(Type::i64, frame::buffer));
        finish_result(i, d);
    }
    if (!flags_wanted(i)) return define_flags(i);
    as_.push(frame_at(Type::i64, field(offsetof(VecCall, flags))));
    as_.popfq();
    define_flags(i);
}

} // namespace vmm::tcg::x64
