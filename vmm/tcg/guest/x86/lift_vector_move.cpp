// Vector moves, merges and lane inserts and extracts. Puts to vector registers are always of whole 128-bit halves.
#include "vmm/tcg/guest/x86/vector_lifter.h"

namespace vmm::tcg::x86 {

namespace {

// Whole-register moves, either direction.
bool move_whole(VectorLifter& v, std::uint8_t attributes) {
    Type t = v.widest();
    if (v.l.is_memory(0))
        v.l.store(0, t, v.l.xmm(t, v.number(1)), attributes);
    else
        v.result(0, v.source(1, attributes));
    return true;
}

// MOVSS, MOVSD: a register source merges, a memory source zero-extends.
bool move_scalar(VectorLifter& v, VecOp merge, Type t) {
    if (v.l.is_memory(0)) {
        v.l.store(0, t, v.l.xmm(t, v.number(1)));
    } else if (v.l.is_memory(1)) {
        v.result(0, v.widen(v.l.load(1, t)));
    } else {
        unsigned first = v.vex() ? 1 : 0;
        v.result(0, v.vec(merge, v.source(first), v.source(first + 1)));
    }
    return true;
}

// MOVLPS, MOVLPD (half 0), MOVHPS, MOVHPD (half 1) with memory.
bool move_half(VectorLifter& v, unsigned half) {
    if (v.l.is_memory(0)) {
        v.l.store(0, Type::i64, v.b.get(Type::i64, slot::xmm(v.number(1)) + 8 * half));
        return true;
    }
    unsigned first = v.vex() ? 1 : 0;
    ValueId loaded = v.widen(v.l.load(first + 1, Type::i64)), old = v.source(first);
    v.result(0, half ? v.vec(VecOp::punpcklqdq, old, loaded) : v.vec(VecOp::movsd, old, loaded));
    return true;
}

// MOVD, MOVQ between vector or MMX registers, general registers and memory.
bool move_low(VectorLifter& v, Type t) {
    Lifter& l = v.l;
    if (v.any_mmx()) {
        if (v.is_mmx(0)) {
            ValueId value = l.is_memory(1) ? l.load(1, t)
                            : v.is_mmx(1)  ? v.b.get(t, slot::mm(v.number(1)))
                                           : l.gpr(t, v.number(1));
            v.mmx_result(0, v.widen(value));
        } else {
            ValueId value = v.b.get(t, slot::mm(v.number(1)));
            if (l.is_memory(0)) l.store(0, t, value);
            v.enter_mmx();
            if (!l.is_memory(0)) l.put_gpr(v.number(0), value);
        }
        return true;
    }
    if (l.is_memory(0))
        l.store(0, t, l.xmm(t, v.number(1)));
    else if (v.is_gpr(0))
        l.put_gpr(v.number(0), l.xmm(t, v.number(1)));
    else if (l.is_memory(1))
        v.result(0, v.widen(l.load(1, t)));
    else if (v.is_gpr(1))
        v.result(0, v.widen(l.gpr(t, v.number(1))));
    else
        v.result(0, v.vec(VecOp::movq, v.source(1)));
    return true;
}

// PEXTRB/W/D/Q, EXTRACTPS.
bool extract(VectorLifter& v, VecOp op, Type element) {
    Lifter& l = v.l;
    std::int64_t imm = l.immediate(2) & 0xff;
    ValueId source;
    if (v.is_mmx(1)) {
        source = v.mmx_source(1);
        v.enter_mmx();
        imm &= 3;
    } else {
        source = v.source(1);
    }
    Type t = element == Type::i64 ? Type::i64 : Type::i32;
    ValueId r = v.to_gpr(op, t, source, imm);
    if (l.is_memory(0))
        l.store(0, element, v.b.trunc(element, r));
    else
        l.put_gpr(v.number(0), r);
    return true;
}

// VINSERTF128, VINSERTI128: the low half of operand 1 or 2, the other likewise.
bool insert_half(VectorLifter& v) {
    bool high = v.l.immediate(3) & 1;
    ValueId inserted = v.source(2);
    std::size_t from = slot::xmm(v.number(1)), to = slot::xmm(v.number(0));
    ValueId kept = v.b.get(Type::v128, from + (high ? 0 : 16));
    v.b.put(Type::v128, to, high ? kept : inserted);
    v.b.put(Type::v128, to + 16, high ? inserted : kept);
    return true;
}
bool extract_half(VectorLifter& v) {
    ValueId half = v.b.get(Type::v128, slot::xmm(v.number(1)) + 16 * (v.l.immediate(2) & 1));
    if (v.l.is_memory(0))
        v.l.store(0, Type::v128, half);
    else
        v.result(0, half);
    return true;
}
bool broadcast_half(VectorLifter& v) {
    ValueId half = v.l.load(1, Type::v128);
    v.b.put(Type::v128, slot::xmm(v.number(0)), half);
    v.b.put(Type::v128, slot::xmm(v.number(0)) + 16, half);
    return true;
}

// Between MMX and vector registers, and conversions between them. Operand 1 may be memory.
bool mmx_to_vector(VectorLifter& v, VecOp op) {
    bool from_memory = v.l.is_memory(1);
    ValueId source = v.mmx_source(1);
    if (!from_memory) v.enter_mmx();
    if (op == VecOp::movq) {
        v.result(0, source);
    } else if (op == VecOp::cvtdq2ps) { // the upper half stays
        ValueId saved = v.begin_checked(true);
        ValueId r = v.vec(op, source);
        v.end_checked(saved);
        v.result(0, v.vec(VecOp::movsd, v.source(0), r));
    } else {
        v.result(0, v.vec(op, source));
    }
    return true;
}
bool vector_to_mmx(VectorLifter& v, VecOp op) {
    ValueId source = v.source(1);
    if (op == VecOp::cvtps2dq || op == VecOp::cvttps2dq) source = v.vec(VecOp::movq, source); // two elements only
    if (op != VecOp::movq) {
        ValueId saved = v.begin_checked(true);
        source = v.vec(op, source);
        v.end_checked(saved);
    }
    v.mmx_result(0, source);
    return true;
}

} // namespace

#define BOTH(name)                                                                                                     \
    case ZYDIS_MNEMONIC_##name:                                                                                        \
    case ZYDIS_MNEMONIC_V##name
#define ONLY(name) case ZYDIS_MNEMONIC_##name

bool lift_vector_move(VectorLifter& v, bool& known) {
    Lifter& l = v.l;
    switch (l.d.insn.mnemonic) {
        BOTH(MOVAPS) : BOTH(MOVAPD) : BOTH(MOVDQA) : return move_whole(v, ir::mem_aligned);
        BOTH(MOVNTPS)
            : BOTH(MOVNTPD)
            : BOTH(MOVNTDQ) : BOTH(MOVNTDQA) : return move_whole(v, ir::mem_aligned | ir::mem_non_temporal);
        BOTH(MOVUPS) : BOTH(MOVUPD) : BOTH(MOVDQU) : BOTH(LDDQU) : return move_whole(v, 0);
        BOTH(MOVSS) : return move_scalar(v, VecOp::movss, Type::i32);
        BOTH(MOVSD) : return move_scalar(v, VecOp::movsd, Type::i64);
        BOTH(MOVLPS) : BOTH(MOVLPD) : return move_half(v, 0);
        BOTH(MOVHPS) : BOTH(MOVHPD) : return move_half(v, 1);
        BOTH(MOVD) : return move_low(v, Type::i32);
        BOTH(MOVQ) : return move_low(v, Type::i64);
        BOTH(PEXTRB) : return extract(v, VecOp::pextrb, Type::i8);
        BOTH(PEXTRW) : return extract(v, VecOp::pextrw, Type::i16);
        BOTH(PEXTRD) : BOTH(EXTRACTPS) : return extract(v, VecOp::pextrd, Type::i32);
        BOTH(PEXTRQ) : return extract(v, VecOp::pextrq, Type::i64);
        ONLY(VINSERTF128) : ONLY(VINSERTI128) : return insert_half(v);
        ONLY(VEXTRACTF128) : ONLY(VEXTRACTI128) : return extract_half(v);
        ONLY(VBROADCASTF128) : ONLY(VBROADCASTI128) : return broadcast_half(v);
        ONLY(MOVQ2DQ) : return mmx_to_vector(v, VecOp::movq);
        ONLY(CVTPI2PS) : return mmx_to_vector(v, VecOp::cvtdq2ps);
        ONLY(CVTPI2PD) : return mmx_to_vector(v, VecOp::cvtdq2pd);
        ONLY(MOVDQ2Q) : return vector_to_mmx(v, VecOp::movq);
        ONLY(CVTPS2PI) : return vector_to_mmx(v, VecOp::cvtps2dq);
        ONLY(CVTTPS2PI) : return vector_to_mmx(v, VecOp::cvttps2dq);
        ONLY(CVTPD2PI) : return vector_to_mmx(v, VecOp::cvtpd2dq);
        ONLY(CVTTPD2PI) : return vector_to_mmx(v, VecOp::cvttpd2dq);
        ONLY(MOVNTQ) : l.store(0, Type::i64, v.b.get(Type::i64, slot::mm(v.number(1))), ir::mem_non_temporal);
        v.enter_mmx();
        return true;
    default: known = false; return false;
    }
}

} // namespace vmm::tcg::x86
