// Emitter: additions, logic, moves between widths, conditions.
#include "vmm/tcg/x64/emitter.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

#define CONTEXT(field) rbp + int(offsetof(EngineContext, field))

bool Emitter::emit_integer(std::uint32_t i) {
    switch (inst(i).op) {
    case Opcode::pc: {
        int d = result_register(i);
        as_.mov(as_.r64(d), qword[CONTEXT(pc_base)]);
        if (inst(i).imm) as_.lea(as_.r64(d), ptr[as_.r64(d) + int(inst(i).imm)]);
        finish_result(i, d);
        return true;
    }
    case Opcode::add:
    case Opcode::adc:
    case Opcode::sub:
    case Opcode::sbb:
    case Opcode::and_:
    case Opcode::or_:
    case Opcode::xor_: return emit_binary(i), true;
    case Opcode::inc:
    case Opcode::dec:
    case Opcode::neg:
    case Opcode::not_:
    case Opcode::bswap: return emit_unary(i), true;
    case Opcode::shl:
    case Opcode::shr:
    case Opcode::sar:
    case Opcode::rol:
    case Opcode::ror:
    case Opcode::rcl:
    case Opcode::rcr: return emit_shift(i), true;
    case Opcode::shld:
    case Opcode::shrd: return emit_double_shift(i), true;
    case Opcode::mul: return emit_mul(i), true;
    case Opcode::umul2:
    case Opcode::smul2: return emit_wide_multiply(i), true;
    case Opcode::udiv2:
    case Opcode::sdiv2: return emit_divide(i), true;
    case Opcode::high: return true; // placed with its operation
    case Opcode::bsf:
    case Opcode::bsr: return emit_scan(i), true;
    case Opcode::tzcnt:
    case Opcode::lzcnt:
    case Opcode::popcnt: return emit_count(i), true;
    case Opcode::bt:
    case Opcode::bts:
    case Opcode::btr:
    case Opcode::btc: return emit_bit_test(i), true;
    case Opcode::andn:
    case Opcode::pdep:
    case Opcode::pext:
    case Opcode::bextr:
    case Opcode::bzhi:
    case Opcode::blsr:
    case Opcode::blsi:
    case Opcode::blsmsk: return emit_fields(i), true;
    case Opcode::zext:
    case Opcode::sext: return emit_extend(i), true;
    case Opcode::lea: return emit_lea(i), true;
    case Opcode::select_nz: return emit_select_nz(i), true;
    case Opcode::select_cc: return emit_select_cc(i), true;
    case Opcode::setcc: return emit_setcc(i), true;
    case Opcode::get_flags:
    case Opcode::put_flags:
    case Opcode::fence: return emit_flag_moves(i), true;
    default: return false;
    }
}

void Emitter::alu(Opcode op, Xbyak::Operand const& d, Xbyak::Operand const& s) {
    switch (op) {
    case Opcode::add: return as_.add(d, s);
    case Opcode::adc: return as_.adc(d, s);
    case Opcode::sub: return as_.sub(d, s);
    case Opcode::sbb: return as_.sbb(d, s);
    case Opcode::and_: return as_.and_(d, s);
    case Opcode::or_: return as_.or_(d, s);
    default: return as_.xor_(d, s);
    }
}
void Emitter::alu(Opcode op, Xbyak::Operand const& d, std::int64_t imm) {
    std::uint32_t v = std::uint32_t(imm);
    switch (op) {
    case Opcode::add: return as_.add(d, v);
    case Opcode::adc: return as_.adc(d, v);
    case Opcode::sub: return as_.sub(d, v);
    case Opcode::sbb: return as_.sbb(d, v);
    case Opcode::and_: return as_.and_(d, v);
    case Opcode::or_: return as_.or_(d, v);
    default: return as_.xor_(d, v);
    }
}

void Emitter::emit_compare(std::uint32_t i) {
    Inst const& n = inst(i);
    clobber_flags();
    int a = reg_of(n.a), b = -1;
    std::int64_t imm = 0;
    bool immediate = is_immediate(n.b, n.type, imm);
    if (!immediate) b = reg_of(n.b);
    auto x = as_.reg(n.type, a);
    if (n.op == Opcode::sub) {
        if (immediate)
            as_.cmp(x, std::uint32_t(imm));
        else
            as_.cmp(x, as_.reg(n.type, b));
        return define_flags(i, recipe(Recipe::cmp, n.type, a, b, imm));
    }
    if (immediate)
        as_.test(x, std::uint32_t(imm) & (n.type == Type::i8 ? 0xff : n.type == Type::i16 ? 0xffff : ~0u));
    else
        as_.test(x, as_.reg(n.type, b));
    define_flags(i, recipe(a == b ? Recipe::logic : Recipe::test, n.type, a, b, imm));
}

void Emitter::emit_binary(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool wanted = flags_wanted(i), unused = plan_.values[i].uses == 0;
    if ((n.op == Opcode::sub || n.op == Opcode::and_) && wanted && unused) return emit_compare(i);
    bool with_carry = n.op == Opcode::adc || n.op == Opcode::sbb;
    bool as_lea = n.op == Opcode::add && !wanted && t >= Type::i32;
    if (with_carry) need_rflags();
    if (with_carry ? !n.sets_flags : !as_lea) clobber_flags();
    ValueId va = n.a, vb = n.b;
    bool commutes = n.op != Opcode::sub && n.op != Opcode::sbb;
    int p = pinned_target(i);
    auto reg_if = [&](ValueId v) { return in_register(v) ? int(val(v).reg) : -1; };
    if (commutes && p >= 0 && reg_if(vb) == p && reg_if(va) != p) std::swap(va, vb);
    std::int64_t imm = 0;
    bool immediate = is_immediate(vb, t, imm), memory = !immediate && in_memory(vb);
    if (val(vb).place == Place::slot && inst(root(vb)).type < t) memory = false;
    int b = immediate || memory ? -1 : reg_of(vb);
    int a = reg_if(va);
    if (a >= 0 && is_scratch(a)) lock(a);
    if (as_lea && !memory) {
        if (a < 0) a = reg_of(va);
        int d = result_register(i);
        if (immediate)
            as_.lea(as_.reg(t, d), ptr[as_.r64(a) + int(imm)]);
        else
            as_.lea(as_.reg(t, d), ptr[as_.r64(a) + as_.r64(b)]);
        return finish_result(i, d);
    }
    if (as_lea) clobber_flags();
    int d;
    if (p < 0 && a >= 0 && is_scratch(a) && dies(va)) { // computed in place of its operand
        d = a;
        forget_register(d);
        owner(d) = none;
        val(va) = {};
    } else {
        d = b >= 0 && b != a ? result_register(i, {b}) : result_register(i);
        if (d != a) move_to(d, va, t);
    }
    auto x = as_.reg(t, d);
    if (immediate)
        alu(n.op, x, imm);
    else if (memory)
        alu(n.op, x, memory_of(vb, t));
    else
        alu(n.op, x, as_.reg(t, b));
    Recipe r;
    if (n.op == Opcode::add || n.op == Opcode::sub) {
        if (immediate || (b >= 0 && b != d && b != p))
            r = recipe(n.op == Opcode::add ? Recipe::add : Recipe::sub, t, d, b, imm);
        else if (memory && val(vb).place == Place::slot)
            r = {.kind = n.op == Opcode::add ? Recipe::add : Recipe::sub,
                 .type = t,
                 .x = std::int8_t(d),
                 .slot = val(vb).disp};
    } else if (!with_carry) {
        r = recipe(Recipe::logic, t, d);
    }
    finish_result(i, d);
    define_flags(i, r);
}

void Emitter::emit_unary(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool step = n.op == Opcode::inc || n.op == Opcode::dec, wanted = flags_wanted(i);
    if (step && wanted)
        need_rflags();
    else if (n.op == Opcode::neg || (step && t < Type::i32))
        clobber_flags();
    int a = in_register(n.a) ? int(val(n.a).reg) : -1;
    if (a >= 0 && is_scratch(a)) lock(a);
    if (step && !wanted && t >= Type::i32) {
        if (a < 0) a = reg_of(n.a);
        int d = result_register(i);
        as_.lea(as_.reg(t, d), ptr[as_.r64(a) + (n.op == Opcode::inc ? 1 : -1)]);
        finish_result(i, d);
        return define_flags(i);
    }
    int d = result_register(i);
    if (d != a) move_to(d, n.a, t);
    auto x = as_.reg(t, d);
    Recipe r;
    switch (n.op) {
    case Opcode::inc: as_.inc(x); break;
    case Opcode::dec: as_.dec(x); break;
    case Opcode::not_: as_.not_(x); break;
    case Opcode::neg:
        as_.neg(x);
        r = recipe(Recipe::neg, t, d);
        break;
    default:
        if (t == Type::i64)
            as_.bswap(as_.r64(d));
        else
            as_.bswap(as_.r32(d));
        if (t == Type::i16) as_.rorx(as_.r32(d), as_.r32(d), 16);
    }
    finish_result(i, d);
    if (n.op != Opcode::not_ && n.op != Opcode::bswap) define_flags(i, r);
}

void Emitter::emit_extend(std::uint32_t i) {
    Inst const& n = inst(i);
    Type from = Type(n.aux), to = at_least_32(n.type);
    bool is_signed = n.op == Opcode::sext;
    auto extend = [&](Xbyak::Operand const& source, int d) {
        if (!is_signed) {
            if (from == Type::i32)
                as_.mov(as_.r32(d), source);
            else
                as_.movzx(as_.r32(d), source);
        } else if (from == Type::i32) {
            as_.movsxd(as_.r64(d), source);
        } else {
            as_.movsx(as_.reg(to, d), source);
        }
    };
    std::int64_t imm;
    if (is_immediate(n.a, from, imm)) {
        int d = result_register(i);
        std::int64_t mask = from == Type::i8 ? 0xff : from == Type::i16 ? 0xffff : 0xffffffff;
        as_.load_constant(d, is_signed ? (to == Type::i64 ? imm : std::int64_t(std::uint32_t(imm))) : imm & mask);
        return finish_result(i, d);
    }
    if (in_memory(n.a)) {
        int d = result_register(i);
        extend(memory_of(n.a, from), d);
        return finish_result(i, d);
    }
    int a = reg_of(n.a);
    int d = result_register(i);
    extend(as_.reg(from, a), d);
    finish_result(i, d);
}

void Emitter::emit_lea(std::uint32_t i) {
    Inst const& n = inst(i);
    auto type = at_least_32(n.type);
    std::int64_t disp = n.imm, base_imm;
    ValueId base = n.a;
    if (base != none && is_immediate(base, n.type, base_imm))
        disp = std::int64_t(std::uint64_t(disp) + std::uint64_t(base_imm)), base = none;
    if (type == Type::i32) disp = std::int32_t(disp);
    int a = base == none ? -1 : reg_of(base), b = n.b == none ? -1 : reg_of(n.b);
    bool far = disp != std::int32_t(disp);
    int d = far ? take_scratch() : result_register(i);
    if (far) as_.load_constant(d, disp), disp = 0;
    Xbyak::RegExp e(static_cast<std::size_t>(disp));
    if (b >= 0) {
        e = as_.r64(b) * (1 << n.aux) + int(disp);
        if (a >= 0) e = as_.r64(a) + as_.r64(b) * (1 << n.aux) + int(disp);
    } else if (a >= 0) {
        e = as_.r64(a) + int(disp);
    } else {
        if (!far) as_.load_constant(d, type == Type::i32 ? std::int64_t(std::uint32_t(disp)) : disp);
        return finish_result(i, d);
    }
    if (far) {
        Xbyak::RegExp sum = a >= 0 ? as_.r64(d) + as_.r64(a) : as_.r64(d) + as_.r64(b) * (1 << n.aux);
        as_.lea(as_.reg(type, d), ptr[sum]);
        if (a >= 0 && b >= 0) as_.lea(as_.reg(type, d), ptr[as_.r64(d) + as_.r64(b) * (1 << n.aux)]);
    } else {
        as_.lea(as_.reg(type, d), ptr[e]);
    }
    finish_result(i, d);
}

void Emitter::emit_select_nz(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = at_least_32(n.type);
    clobber_flags();
    int a = reg_of(n.a), b = reg_of(n.b);
    bool c_in_place = in_register(n.c) && val(n.c).reg == pinned_target(i);
    int d = result_register(i, {a, b});
    if (!(c_in_place && d == pinned_target(i))) move_to(d, n.c, n.type);
    as_.test(as_.reg(Type(n.aux), a), as_.reg(Type(n.aux), a));
    as_.cmovnz(as_.reg(t, d), as_.reg(t, b));
    finish_result(i, d);
}

static void cmov(Assembler& as, Cond cc, Xbyak::Reg const& d, Xbyak::Operand const& s) {
    switch (cc) {
    case Cond::o: return as.cmovo(d, s);
    case Cond::no: return as.cmovno(d, s);
    case Cond::b: return as.cmovb(d, s);
    case Cond::ae: return as.cmovae(d, s);
    case Cond::e: return as.cmove(d, s);
    case Cond::ne: return as.cmovne(d, s);
    case Cond::be: return as.cmovbe(d, s);
    case Cond::a: return as.cmova(d, s);
    case Cond::s: return as.cmovs(d, s);
    case Cond::ns: return as.cmovns(d, s);
    case Cond::p: return as.cmovp(d, s);
    case Cond::np: return as.cmovnp(d, s);
    case Cond::l: return as.cmovl(d, s);
    case Cond::ge: return as.cmovge(d, s);
    case Cond::le: return as.cmovle(d, s);
    case Cond::g: return as.cmovg(d, s);
    }
}

void Emitter::emit_select_cc(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = at_least_32(n.type);
    need_rflags();
    int p = pinned_target(i);
    if (p >= 0 && in_register(n.a) && val(n.a).reg == p) { // the value is there: replace it when the condition fails
        int b = reg_of(n.b);
        forget_register(p);
        cmov(as_, invert(n.cc), as_.reg(t, p), as_.reg(t, b));
        return finish_result(i, p);
    }
    int a = reg_of(n.a);
    int d = result_register(i, {a});
    if (!(in_register(n.b) && val(n.b).reg == d)) move_to(d, n.b, n.type);
    cmov(as_, n.cc, as_.reg(t, d), as_.reg(t, a));
    finish_result(i, d);
}

void Emitter::emit_setcc(std::uint32_t i) {
    need_rflags();
    int d = result_register(i);
    as_.db(int(0x40 | (d >= 8 ? 1 : 0)));
    as_.db(0x0f), as_.db(0x90 + int(inst(i).cc)), as_.db(0xc0 | (d & 7));
    finish_result(i, d);
}

void Emitter::emit_flag_moves(std::uint32_t i) {
    Inst const& n = inst(i);
    if (n.op == Opcode::fence) return as_.mfence();
    if (n.op == Opcode::put_flags) {
        int a = reg_of(n.a);
        as_.mov(qword[CONTEXT(cc_src)], as_.r64(a));
        as_.mov(dword[CONTEXT(cc_op)], cc_op(CcKind::raw, 3));
        flags_ = {};
        return;
    }
    need_rflags();
    int d = take_scratch();
    as_.pushfq();
    as_.pop(as_.r64(d));
    if (!flags_.memory) {
        as_.mov(qword[CONTEXT(cc_src)], as_.r64(d));
        as_.mov(dword[CONTEXT(cc_op)], cc_op(CcKind::raw, 3));
        flags_.memory = true;
    }
    as_.and_(as_.r32(d), 0x8d5);
    flags_.rflags = false;
    finish_result(i, d);
}

} // namespace vmm::tcg::x64
