// MMX, SSE and AVX instructions: the regular ones, straight from the table of vector operations.
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/vector_lifter.h"

#include <array>
#include <string_view>

namespace vmm::tcg::x86 {

namespace {

constexpr std::uint16_t no_op = 0xffff;

VecOp op_of(ZydisMnemonic mnemonic, bool& found) {
    static constexpr auto table = [] {
        std::array<std::uint16_t, ZYDIS_MNEMONIC_MAX_VALUE + 1> t{};
        t.fill(no_op);
#define ROW(mnemonic, op) t[ZYDIS_MNEMONIC_##mnemonic] = std::uint16_t(VecOp::op);
#include "vmm/tcg/guest/x86/vector_rows.inc"
#undef ROW
        return t;
    }();
    found = table[mnemonic] != no_op;
    return VecOp(table[mnemonic]);
}

VecOp immediate_shift(VecOp op) {
    switch (op) {
    case VecOp::psrlw: return VecOp::psrlw_i;
    case VecOp::psrld: return VecOp::psrld_i;
    case VecOp::psrlq: return VecOp::psrlq_i;
    case VecOp::psraw: return VecOp::psraw_i;
    case VecOp::psrad: return VecOp::psrad_i;
    case VecOp::psllw: return VecOp::psllw_i;
    case VecOp::pslld: return VecOp::pslld_i;
    case VecOp::psllq: return VecOp::psllq_i;
    case VecOp::vpermilps: return VecOp::vpermilps_i;
    case VecOp::vpermilpd: return VecOp::vpermilpd_i;
    default: return op;
    }
}

// The 256-bit-source variant.
VecOp wide_variant(VecOp op) {
    switch (op) {
    case VecOp::cvtpd2ps: return VecOp::cvtpd2ps_y;
    case VecOp::cvtpd2dq: return VecOp::cvtpd2dq_y;
    case VecOp::cvttpd2dq: return VecOp::cvttpd2dq_y;
    case VecOp::cvtps2ph: return VecOp::cvtps2ph_y;
    case VecOp::movmskps: return VecOp::movmskps_y;
    case VecOp::movmskpd: return VecOp::movmskpd_y;
    case VecOp::pmovmskb: return VecOp::pmovmskb_y;
    case VecOp::ptest: return VecOp::ptest_y;
    case VecOp::vtestps: return VecOp::vtestps_y;
    case VecOp::vtestpd: return VecOp::vtestpd_y;
    default: return op;
    }
}

// The variant with a 64-bit general register.
VecOp quad_variant(VecOp op) {
    switch (op) {
    case VecOp::cvtsi2ss: return VecOp::cvtsi2ss_q;
    case VecOp::cvtsi2sd: return VecOp::cvtsi2sd_q;
    case VecOp::cvtss2si: return VecOp::cvtss2si_q;
    case VecOp::cvttss2si: return VecOp::cvttss2si_q;
    case VecOp::cvtsd2si: return VecOp::cvtsd2si_q;
    case VecOp::cvttsd2si: return VecOp::cvttsd2si_q;
    default: return op;
    }
}

// The trailing immediate, cut to what the operation sees.
std::int64_t trailing_immediate(VectorLifter& v, VecOp op, bool memory_source) {
    unsigned last = v.l.operand_count() - 1;
    if (!v.l.is_immediate(last)) return 0;
    std::int64_t imm = v.l.immediate(last) & 0xff;
    switch (op) {
    case VecOp::cmpps:
    case VecOp::cmppd:
    case VecOp::cmpss:
    case VecOp::cmpsd: return imm & (v.vex() ? 31 : 7);
    case VecOp::insertps: return memory_source ? imm & 0x3f : imm;
    default: return imm;
    }
}

bool lift_compare(VectorLifter& v, VecOp op) {
    ir::VecInfo const& info = ir::vec_info(op);
    ValueId a = v.source(0), b = v.source(1);
    bool checked = info.floating && v.l.mode.is(Mode::fp_trap);
    ValueId old_flags = checked ? v.b.emit({.op = Opcode::get_flags, .type = Type::i64}) : none;
    ValueId saved = v.begin_checked(info.floating);
    v.b.emit(
        {.op = Opcode::vec_to_gpr, .type = Type::i32, .sets_flags = true, .vec_op = std::uint16_t(op), .a = a, .b = b});
    if (!checked) return true;
    // A #XM must find the old flags: the new ones are put once the check has passed.
    ValueId new_flags = v.b.emit({.op = Opcode::get_flags, .type = Type::i64});
    v.b.emit({.op = Opcode::put_flags, .type = Type::i64, .a = old_flags});
    v.end_checked(saved);
    v.b.emit({.op = Opcode::put_flags, .type = Type::i64, .a = new_flags});
    return true;
}

bool lift_fused(VectorLifter& v, VecOp op) {
    ValueId x = v.source(0), y = v.source(1), z = v.source(2);
    ValueId saved = v.begin_checked(true);
    ValueId r = v.vec(op, x, y, 0, v.widest(), z);
    v.end_checked(saved, op, r);
    v.result(0, r);
    return true;
}

bool lift_regular(VectorLifter& v, VecOp op) {
    Lifter& l = v.l;
    ir::VecInfo const& info = ir::vec_info(op);
    unsigned first = v.vex() ? 1 : 0; // operand that is `a` of two-source forms
    bool unary = info.form == ir::VecForm::unary;
    unsigned last_source = unary ? 1 : first + 1;
    std::int64_t imm = trailing_immediate(v, op, l.is_memory(last_source));
    Type t = v.register_type(0);
    ValueId a = none, b = none, c = none;
    switch (info.form) {
    case ir::VecForm::unary: a = v.source(1); break;
    case ir::VecForm::shift: a = v.source(first); break;
    case ir::VecForm::mask:
        a = v.source(first);
        b = v.source(first + 1);
        c = v.vex() ? v.source(3) : l.xmm(Type::v128, 0);
        break;
    default:
        a = v.source(first);
        b = v.source(first + 1);
        break;
    }
    ValueId saved = v.begin_checked(info.floating);
    ValueId r = v.vec(op, a, b, imm, t, c);
    v.end_checked(saved, op, r);
    v.result(0, r);
    return true;
}

bool lift_from_gpr(VectorLifter& v, VecOp op) {
    unsigned first = v.vex() ? 1 : 0;
    if (v.l.operand(first + 1).size == 64) op = quad_variant(op);
    std::int64_t imm = trailing_immediate(v, op, false);
    ir::VecInfo const& info = ir::vec_info(op);
    ValueId a = v.source(first);
    ValueId integer =
        info.immediate && v.l.is_register(first + 1) ? v.l.gpr(Type::i64, v.number(first + 1)) : v.l.read(first + 1);
    ValueId saved = v.begin_checked(info.floating);
    ValueId r = v.from_gpr(op, a, integer, imm);
    v.end_checked(saved);
    v.result(0, r);
    return true;
}

bool lift_to_gpr(VectorLifter& v, VecOp op) {
    bool quad = v.l.operand(0).size == 64 && quad_variant(op) != op;
    if (quad) op = quad_variant(op);
    ir::VecInfo const& info = ir::vec_info(op);
    ValueId a = v.source(1);
    ValueId saved = v.begin_checked(info.floating);
    ValueId r = v.to_gpr(op, quad ? Type::i64 : Type::i32, a);
    v.end_checked(saved);
    v.l.put_gpr(v.number(0), r);
    return true;
}

// The 8 bytes of VCVTPH2PS and VCVTPS2PH in memory may lie anywhere (SDM vol. 2, exceptions type 11).
bool unchecked_operand(Lifter const& l, unsigned i) {
    return l.mode.is(Mode::alignment_check) && l.is_memory(i) && l.operand(i).size == 64;
}

bool lift_from_half(VectorLifter& v, VecOp op) {
    if (!unchecked_operand(v.l, 1)) return lift_regular(v, op);
    ValueId a = v.widen(v.l.call(HelperId::load_unchecked, v.l.address(1, 8, false)));
    ValueId saved = v.begin_checked(true);
    ValueId r = v.vec(op, a, none, 0, v.register_type(0));
    v.end_checked(saved, op, r);
    v.result(0, r);
    return true;
}

// VCVTPS2PH: to a register (upper part zeroed) or 8 or 16 bytes of memory.
bool lift_store_form(VectorLifter& v, VecOp op) {
    std::int64_t imm = trailing_immediate(v, op, false);
    ValueId a = v.source(1);
    ValueId saved = v.begin_checked(true);
    ValueId r = v.vec(op, a, none, imm);
    v.end_checked(saved, op, r);
    if (!v.l.is_memory(0))
        v.result(0, r);
    else if (v.l.operand(0).size == 128)
        v.l.store(0, Type::v128, r);
    else if (ValueId low = v.to_gpr(VecOp::movq_to_gpr, Type::i64, r); unchecked_operand(v.l, 0))
        v.l.call(HelperId::store_unchecked, v.l.address(0, 8, true), low);
    else
        v.l.store(0, Type::i64, low);
    return true;
}

// MMX instructions on 64-bit values in the low half; operations that work across the whole register need their operands
// arranged.
ValueId mmx_operation(VectorLifter& v, VecOp op, ValueId a, ValueId b, std::int64_t imm) {
    auto joined = [&] { return v.vec(VecOp::punpcklqdq, a, b); };
    switch (op) {
    case VecOp::packsswb:
    case VecOp::packuswb:
    case VecOp::packssdw:
    case VecOp::phaddw:
    case VecOp::phaddd:
    case VecOp::phaddsw:
    case VecOp::phsubw:
    case VecOp::phsubd:
    case VecOp::phsubsw: {
        ValueId both = joined();
        return v.vec(op, both, both);
    }
    case VecOp::punpckhbw: return v.vec(VecOp::psrldq_i, v.vec(VecOp::punpcklbw, a, b), none, 8);
    case VecOp::punpckhwd: return v.vec(VecOp::psrldq_i, v.vec(VecOp::punpcklwd, a, b), none, 8);
    case VecOp::punpckhdq: return v.vec(VecOp::psrldq_i, v.vec(VecOp::punpckldq, a, b), none, 8);
    case VecOp::palignr: return v.vec(VecOp::psrldq_i, v.vec(VecOp::punpcklqdq, b, a), none, imm);
    case VecOp::pshufb: {
        ValueId mask = v.widen(v.l.constant(std::int64_t(0x8787878787878787)));
        return v.vec(op, a, v.vec(VecOp::pand, b, mask));
    }
    default: return v.vec(op, a, b, imm);
    }
}

bool lift_mmx(VectorLifter& v, VecOp op) {
    ir::VecInfo const& info = ir::vec_info(op);
    std::int64_t imm = trailing_immediate(v, op, false);
    if (info.form == ir::VecForm::to_gpr) { // pmovmskb
        ValueId a = v.mmx_source(1);
        v.enter_mmx();
        v.l.put_gpr(v.number(0), v.to_gpr(op, Type::i32, a));
        return true;
    }
    ValueId r;
    if (info.form == ir::VecForm::from_gpr) { // pinsrw
        ValueId a = v.mmx_source(0);
        ValueId integer = v.l.is_memory(1) ? v.l.load(1, Type::i16) : v.l.gpr(Type::i64, v.number(1));
        r = v.from_gpr(op, a, integer, imm & 3);
    } else if (info.form == ir::VecForm::unary) {
        r = v.vec(op, v.mmx_source(1), none, imm);
    } else if (info.form == ir::VecForm::shift) {
        r = v.vec(op, v.mmx_source(0), none, imm);
    } else {
        ValueId b = v.mmx_source(1), a = v.mmx_source(0);
        r = mmx_operation(v, op, a, b, imm);
    }
    v.mmx_result(0, r);
    return true;
}

bool lift_by_form(VectorLifter& v, VecOp op) {
    switch (ir::vec_info(op).form) {
    case ir::VecForm::compare: return lift_compare(v, op);
    case ir::VecForm::fused: return lift_fused(v, op);
    case ir::VecForm::from_gpr: return lift_from_gpr(v, op);
    case ir::VecForm::to_gpr: return lift_to_gpr(v, op);
    case ir::VecForm::store_form: return lift_store_form(v, op);
    default: return lift_regular(v, op);
    }
}

} // namespace

bool lift_vector(Lifter& l) {
    VectorLifter v(l);
    bool known = true;
    if (bool ok = lift_vector_state(v, known); known) return ok;
    bool mmx = v.any_mmx();
    auto gate = mmx ? v.mmx_gate() : v.sse_gate();
    if (gate == VectorLifter::Gate::undefined) return l.undefined();
    if (gate == VectorLifter::Gate::raised) return true;
    known = true;
    if (bool ok = lift_vector_move(v, known); known) return ok;
    known = true;
    if (bool ok = lift_vector_helped(v, known); known) return ok;
    bool found = false;
    VecOp op = op_of(l.d.insn.mnemonic, found);
    if (!found) return l.undefined();
    if (l.is_immediate(l.operand_count() - 1)) op = immediate_shift(op);
    if (mmx) return lift_mmx(v, op);
    if (v.widest() == Type::v256) op = wide_variant(op);
    if (l.d.insn.mnemonic == ZYDIS_MNEMONIC_VCVTPH2PS) return lift_from_half(v, op);
    return lift_by_form(v, op);
}

// --- VectorLifter

Type VectorLifter::widest() const {
    for (unsigned i = 0; i < l.operand_count(); i++)
        if (l.operand(i).size == 256) return Type::v256;
    return Type::v128;
}

VectorLifter::Gate VectorLifter::sse_gate() {
    if (vex() ? !l.mode.is(Mode::avx) : l.mode.is(Mode::cr0_em) || !l.mode.is(Mode::osfxsr)) return Gate::undefined;
    if (!l.mode.is(Mode::cr0_ts)) return Gate::open;
    l.raise(vmm::x86::vec::nm);
    return Gate::raised;
}

VectorLifter::Gate VectorLifter::mmx_gate() {
    if (l.mode.is(Mode::cr0_em)) return Gate::undefined;
    if (l.mode.is(Mode::cr0_ts)) {
        l.raise(vmm::x86::vec::nm);
        return Gate::raised;
    }
    l.call(HelperId::x87_wait);
    return Gate::open;
}

ValueId VectorLifter::source(unsigned i, std::uint8_t attributes) {
    if (!l.is_memory(i)) return l.xmm(register_type(i), number(i));
    unsigned bytes = l.operand(i).size / 8u;
    if (bytes == 32) return l.load(i, Type::v256, attributes);
    if (bytes == 16) return l.load(i, Type::v128, attributes);
    return widen(l.load(i, ir::int_type(bytes)));
}

ValueId VectorLifter::mmx_source(unsigned i) {
    if (l.is_memory(i)) return widen(l.load(i, l.operand(i).size == 32 ? Type::i32 : Type::i64));
    return widen(b.get(Type::i64, slot::mm(number(i))));
}

void VectorLifter::enter_mmx() {
    ValueId fsw = b.get(Type::i16, slot::fsw);
    b.put(Type::i16, slot::fsw, b.binary(Opcode::and_, Type::i16, fsw, l.constant(0xc7ff, Type::i16)));
    b.put(Type::i8, slot::fpu_tags, l.constant(0xff, Type::i8));
}

void VectorLifter::mmx_result(unsigned i, ValueId value) {
    enter_mmx();
    b.put(Type::i64, slot::mm(number(i)), to_gpr(VecOp::movq_to_gpr, Type::i64, value));
    b.put(Type::i16, slot::mm_exponent(number(i)), l.constant(0xffff, Type::i16));
}

ValueId VectorLifter::begin_checked(bool floating) {
    if (!floating || !l.mode.is(Mode::fp_trap)) return none;
    ValueId saved = b.get(Type::i32, slot::mxcsr);
    b.put(Type::i32, slot::mxcsr, b.binary(Opcode::and_, Type::i32, saved, l.constant(~0x3f, Type::i32)));
    return saved;
}

void VectorLifter::end_checked(ValueId saved) {
    if (saved != none) l.call(HelperId::simd_check, b.zext(Type::i64, saved), l.constant(0));
}

void VectorLifter::end_checked(ValueId saved, VecOp op, ValueId result) {
    ir::VecInfo const& info = ir::vec_info(op);
    if (saved == none || !info.underflows) return end_checked(saved);
    Type const t = b.type_of(result);
    b.put(t, slot::simd_result, result);
    std::string_view name = info.name;
    if (name.ends_with("_y")) name.remove_suffix(2);
    char const scalar_or_packed = name[name.size() - 2], precision = name.back();
    std::int64_t const bytes = precision == 'd' ? 8 : precision == 's' ? 4 : 2;
    std::int64_t const count = scalar_or_packed == 's' ? 1 : ir::size_of(t) / bytes;
    l.call(HelperId::simd_check, b.zext(Type::i64, saved), l.constant(simd_elements(unsigned(bytes), unsigned(count))));
}

} // namespace vmm::tcg::x86
