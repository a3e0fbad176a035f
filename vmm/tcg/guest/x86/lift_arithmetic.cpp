// Integer arithmetic and logic, multiplication and division, decimal adjustment.
#include "vmm/tcg/guest/x86/handlers.h"
#include "vmm/tcg/guest/x86/lifter.h"

namespace vmm::tcg::x86 {

using namespace vmm::x86;

// DEST := DEST op SRC, with flags.
static bool binary(Lifter& l, Opcode op, Opcode rmw) {
    Type const t = l.type(0);
    ValueId const source = l.read(1, t);
    if (l.is_memory(0))
        l.rmw(0, rmw, t, source);
    else
        l.write(0, l.b.binary(op, t, l.read(0), source, true));
    return true;
}

bool lift_add(Lifter& l) { return binary(l, Opcode::add, Opcode::rmw_add); }
bool lift_adc(Lifter& l) { return binary(l, Opcode::adc, Opcode::rmw_adc); }
bool lift_sub(Lifter& l) { return binary(l, Opcode::sub, Opcode::rmw_sub); }
bool lift_sbb(Lifter& l) { return binary(l, Opcode::sbb, Opcode::rmw_sbb); }
bool lift_and(Lifter& l) { return binary(l, Opcode::and_, Opcode::rmw_and); }
bool lift_or(Lifter& l) { return binary(l, Opcode::or_, Opcode::rmw_or); }
bool lift_xor(Lifter& l) { return binary(l, Opcode::xor_, Opcode::rmw_xor); }

// Flags only.
static bool compare(Lifter& l, Opcode op) {
    Type const t = l.type(0);
    ValueId const first = l.read(0), second = l.read(1, t);
    l.b.binary(op, t, first, second, true);
    return true;
}
bool lift_cmp(Lifter& l) { return compare(l, Opcode::sub); }
bool lift_test(Lifter& l) { return compare(l, Opcode::and_); }

static bool unary(Lifter& l, Opcode op, Opcode rmw, bool sets_flags) {
    Type const t = l.type(0);
    if (l.is_memory(0))
        l.rmw(0, rmw, t, none, sets_flags);
    else
        l.write(0, l.b.unary(op, t, l.read(0), sets_flags));
    return true;
}
bool lift_inc(Lifter& l) { return unary(l, Opcode::inc, Opcode::rmw_inc, true); }
bool lift_dec(Lifter& l) { return unary(l, Opcode::dec, Opcode::rmw_dec, true); }
bool lift_neg(Lifter& l) { return unary(l, Opcode::neg, Opcode::rmw_neg, true); }
bool lift_not(Lifter& l) { return unary(l, Opcode::not_, Opcode::rmw_not, false); }

// High half of a double-width register pair: AH for bytes, (r/e)DX else.
static ValueId get_high(Lifter& l, Type t) { return t == Type::i8 ? l.b.get(t, slot::gpr(rax) + 1) : l.gpr(t, rdx); }
static void put_pair(Lifter& l, ValueId low, ValueId high) {
    l.put_gpr(rax, low);
    if (l.b.type_of(high) == Type::i8)
        l.b.put(Type::i8, slot::gpr(rax) + 1, high);
    else
        l.put_gpr(rdx, high);
}

// rDX:rAX := rAX * SRC (AX := AL * SRC).
static bool multiply_wide(Lifter& l, Opcode op) {
    unsigned const source_index = l.operand_count() - 1;
    Type const t = l.type(source_index);
    ValueId const source = l.read(source_index);
    ValueId const low = l.b.binary(op, t, l.gpr(t, rax), source, true);
    ValueId const high = l.b.unary(Opcode::high, t, low);
    put_pair(l, low, high);
    return true;
}
bool lift_mul(Lifter& l) { return multiply_wide(l, Opcode::umul2); }

bool lift_imul(Lifter& l) {
    if (l.operand_count() == 1) return multiply_wide(l, Opcode::smul2);
    Type const t = l.type(0);
    unsigned const first = l.operand_count() == 3 ? 1 : 0;
    ValueId const a = l.read(first, t), factor = l.read(first + 1, t);
    l.write(0, l.b.binary(Opcode::mul, t, a, factor, true));
    return true;
}

// rAX := rDX:rAX / SRC, rDX := remainder.
static bool divide(Lifter& l, Opcode op) {
    Type const t = l.type(0);
    ValueId const divisor = l.read(0);
    ValueId const high = get_high(l, t), low = l.gpr(t, rax);
    ValueId const quotient = l.b.emit({.op = op, .type = t, .a = high, .b = low, .c = divisor});
    ValueId const remainder = l.b.unary(Opcode::high, t, quotient);
    put_pair(l, quotient, remainder);
    return true;
}
bool lift_div(Lifter& l) { return divide(l, Opcode::udiv2); }
bool lift_idiv(Lifter& l) { return divide(l, Opcode::sdiv2); }

// Addition with carry in and out through one flag (CF or OF); all other flags are kept.
static bool add_with_flag(Lifter& l, unsigned flag_bit) {
    Type const t = l.type(0), q = Type::i64;
    auto and_ = [&](ValueId v, std::int64_t mask) { return l.b.binary(Opcode::and_, q, v, l.constant(mask)); };
    auto count = [&] { return l.constant(flag_bit, Type::i8); };
    ValueId const source = l.read(1, t), destination = l.read(0);
    ValueId const old = l.b.emit({.op = Opcode::get_flags, .type = q});
    l.b.emit({.op = Opcode::put_flags, .a = and_(l.b.binary(Opcode::shr, q, old, count()), 1)});
    ValueId const sum = l.b.binary(Opcode::adc, t, destination, source, true);
    ValueId carry = and_(l.b.emit({.op = Opcode::get_flags, .type = q}), 1);
    carry = l.b.binary(Opcode::shl, q, carry, count());
    ValueId const kept = and_(old, ~(std::int64_t(1) << flag_bit));
    l.b.emit({.op = Opcode::put_flags, .a = l.b.binary(Opcode::or_, q, kept, carry)});
    l.write(0, sum);
    return true;
}
bool lift_adcx(Lifter& l) { return add_with_flag(l, 0); }
bool lift_adox(Lifter& l) { return add_with_flag(l, 11); }

// DEST1:DEST2 := rDX * SRC, flags kept. DEST1 wins when both name one register.
bool lift_mulx(Lifter& l) {
    Type const t = l.type(0);
    ValueId const source = l.read(2);
    ValueId const low = l.b.binary(Opcode::umul2, t, l.gpr(t, rdx), source);
    ValueId const high = l.b.unary(Opcode::high, t, low);
    l.write(1, low);
    l.write(0, high);
    return true;
}

// --- decimal adjustment: helpers work on AX and the flags in the context
static bool decimal(Lifter& l, HelperId id) { return l.call(id), true; }
bool lift_aaa(Lifter& l) { return decimal(l, HelperId::aaa); }
bool lift_aas(Lifter& l) { return decimal(l, HelperId::aas); }
bool lift_daa(Lifter& l) { return decimal(l, HelperId::daa); }
bool lift_das(Lifter& l) { return decimal(l, HelperId::das); }
static bool decimal_base(Lifter& l, HelperId id) {
    l.call(id, l.constant(l.immediate(0) & 0xff));
    return true;
}
bool lift_aam(Lifter& l) { return decimal_base(l, HelperId::aam); }
bool lift_aad(Lifter& l) { return decimal_base(l, HelperId::aad); }

bool lift_bound(Lifter& l) {
    Type const t = l.type(0);
    unsigned const bytes = ir::size_of(t);
    ValueId const lower = l.b.load(t, l.address(1, bytes, false), 0, l.base_hint(1));
    ValueId const upper = l.b.load(t, l.address(1, bytes, false, bytes), 0, l.base_hint(1));
    auto wide = [&](ValueId v) { return l.b.sext(Type::i64, v); };
    l.call(HelperId::bound, wide(l.read(0)), wide(lower), wide(upper));
    return true;
}

bool lift_arpl(Lifter& l) {
    Type const t = Type::i16;
    ValueId const source = l.read(1, t);
    ValueId const at = l.is_memory(0) ? l.address(0, 2, true) : none;
    ValueId const old = at != none ? l.b.load(t, at, ir::mem_for_write, l.base_hint(0)) : l.read(0, t);
    ValueId const result = l.call(HelperId::arpl, l.b.zext(Type::i64, old), l.b.zext(Type::i64, source));
    if (at != none)
        l.b.store(t, at, l.b.trunc(t, result), 0, l.base_hint(0));
    else
        l.write(0, l.b.trunc(t, result));
    return true;
}

// AL := CF ? FFh : 0 (undocumented).
bool lift_salc(Lifter& l) {
    l.put_gpr(rax, l.b.select_cc(Type::i8, Cond::b, l.constant(-1, Type::i8), l.constant(0, Type::i8)));
    return true;
}

} // namespace vmm::tcg::x86
