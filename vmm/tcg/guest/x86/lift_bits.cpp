// Shifts, rotates, bit tests and scans, BMI1/BMI2, byte swaps, CRC32.
#include "vmm/tcg/guest/x86/handlers.h"
#include "vmm/tcg/guest/x86/lifter.h"

namespace vmm::tcg::x86 {

using namespace vmm::x86;

// Reads operand 0, applies `make`, writes it back: memory through one write-checked load and a store that cannot fault.
template <class Make> static bool modify(Lifter& l, Type t, Make make) {
    if (!l.is_memory(0)) return l.write(0, make(l.read(0, t))), true;
    ValueId const at = l.address(0, ir::size_of(t), true);
    ValueId const old = l.b.load(t, at, ir::mem_for_write, l.base_hint(0));
    l.b.store(t, at, make(old), 0, l.base_hint(0));
    return true;
}

static bool shift(Lifter& l, Opcode op) {
    Type const t = l.type(0);
    ValueId const count = l.operand_count() > 1 ? l.read(1, Type::i8) : l.constant(1, Type::i8);
    return modify(l, t, [&](ValueId v) { return l.b.binary(op, t, v, count, true); });
}
bool lift_shl(Lifter& l) { return shift(l, Opcode::shl); }
bool lift_shr(Lifter& l) { return shift(l, Opcode::shr); }
bool lift_sar(Lifter& l) { return shift(l, Opcode::sar); }
bool lift_rol(Lifter& l) { return shift(l, Opcode::rol); }
bool lift_ror(Lifter& l) { return shift(l, Opcode::ror); }
bool lift_rcl(Lifter& l) { return shift(l, Opcode::rcl); }
bool lift_rcr(Lifter& l) { return shift(l, Opcode::rcr); }

static bool double_shift(Lifter& l, Opcode op) {
    Type const t = l.type(0);
    ValueId const source = l.read(1, t), count = l.read(2, Type::i8);
    return modify(l, t, [&](ValueId v) {
        return l.b.emit({.op = op, .type = t, .sets_flags = true, .a = v, .b = source, .c = count});
    });
}
bool lift_shld(Lifter& l) { return double_shift(l, Opcode::shld); }
bool lift_shrd(Lifter& l) { return double_shift(l, Opcode::shrd); }

// BMI2 shifts: no flags; the count's low 5 or 6 bits.
static bool shift_without_flags(Lifter& l, Opcode op) {
    Type const t = l.type(0);
    ValueId const source = l.read(1, t);
    ValueId const count = l.is_immediate(2) ? l.read(2, Type::i8) : l.b.trunc(Type::i8, l.read(2));
    l.write(0, l.b.binary(op, t, source, count));
    return true;
}
bool lift_shlx(Lifter& l) { return shift_without_flags(l, Opcode::shl); }
bool lift_shrx(Lifter& l) { return shift_without_flags(l, Opcode::shr); }
bool lift_sarx(Lifter& l) { return shift_without_flags(l, Opcode::sar); }
bool lift_rorx(Lifter& l) { return shift_without_flags(l, Opcode::ror); }

// Where the bit string's element lies that a register bit offset selects (SDM vol. 2, BT): signed, any distance.
static ValueId bit_address(Lifter& l, Type t, bool write) {
    if (l.is_immediate(1)) return l.address(0, ir::size_of(t), write);
    unsigned const width_shift = unsigned(t) + 3;
    ValueId const bit = l.b.sext(Type::i64, l.read(1, t));
    ValueId const element = l.b.binary(Opcode::sar, Type::i64, bit, l.constant(width_shift, Type::i8));
    ValueId const byte = l.b.binary(Opcode::shl, Type::i64, element, l.constant(unsigned(t), Type::i8));
    return l.address_indexed(0, byte, ir::size_of(t), write);
}

bool lift_bt(Lifter& l) {
    Type const t = l.type(0);
    ValueId const value = l.is_memory(0) ? l.b.load(t, bit_address(l, t, false), 0, l.base_hint(0)) : l.read(0);
    l.b.binary(Opcode::bt, t, value, l.read(1, t), true);
    return true;
}

static bool bit_change(Lifter& l, Opcode op, Opcode rmw) {
    Type const t = l.type(0);
    ValueId const bit = l.read(1, t);
    if (l.is_memory(0))
        l.rmw_at(bit_address(l, t, true), 0, rmw, t, bit);
    else
        l.write(0, l.b.binary(op, t, l.read(0), bit, true));
    return true;
}
bool lift_bts(Lifter& l) { return bit_change(l, Opcode::bts, Opcode::rmw_bts); }
bool lift_btr(Lifter& l) { return bit_change(l, Opcode::btr, Opcode::rmw_btr); }
bool lift_btc(Lifter& l) { return bit_change(l, Opcode::btc, Opcode::rmw_btc); }

// A source of 0 leaves the whole destination alone, its upper half too.
static bool bit_scan(Lifter& l, Opcode op) {
    Type const t = l.type(0);
    ValueId const source = l.read(1, t), old = l.read(0);
    ValueId result = l.b.binary(op, t, source, old, true);
    if (t != Type::i32) return l.write(0, result), true;
    ValueId const whole = l.gpr(Type::i64, l.register_number(0));
    result = l.b.zext(Type::i64, result);
    l.put_gpr(l.register_number(0), l.b.emit({.op = Opcode::select_nz,
                                              .type = Type::i64,
                                              .aux = std::uint8_t(t),
                                              .a = source,
                                              .b = result,
                                              .c = whole}));
    return true;
}
bool lift_bsf(Lifter& l) { return bit_scan(l, Opcode::bsf); }
bool lift_bsr(Lifter& l) { return bit_scan(l, Opcode::bsr); }

// DEST := op(SRC) with flags.
static bool from_source(Lifter& l, Opcode op) {
    Type const t = l.type(0);
    l.write(0, l.b.unary(op, t, l.read(1, t), true));
    return true;
}
bool lift_tzcnt(Lifter& l) { return from_source(l, Opcode::tzcnt); }
bool lift_lzcnt(Lifter& l) { return from_source(l, Opcode::lzcnt); }
bool lift_popcnt(Lifter& l) { return from_source(l, Opcode::popcnt); }
bool lift_blsi(Lifter& l) { return from_source(l, Opcode::blsi); }
bool lift_blsr(Lifter& l) { return from_source(l, Opcode::blsr); }
bool lift_blsmsk(Lifter& l) { return from_source(l, Opcode::blsmsk); }

// DEST := SRC1 op SRC2.
static bool three_operand(Lifter& l, Opcode op, bool sets_flags) {
    Type const t = l.type(0);
    ValueId const first = l.read(1, t), second = l.read(2, t);
    l.write(0, l.b.binary(op, t, first, second, sets_flags));
    return true;
}
bool lift_andn(Lifter& l) { return three_operand(l, Opcode::andn, true); }
bool lift_bextr(Lifter& l) { return three_operand(l, Opcode::bextr, true); }
bool lift_bzhi(Lifter& l) { return three_operand(l, Opcode::bzhi, true); }
bool lift_pdep(Lifter& l) { return three_operand(l, Opcode::pdep, false); }
bool lift_pext(Lifter& l) { return three_operand(l, Opcode::pext, false); }

// A 16-bit BSWAP is undefined; processors give 0.
bool lift_bswap(Lifter& l) {
    Type const t = l.type(0);
    l.write(0, t == Type::i16 ? l.constant(0, t) : l.b.unary(Opcode::bswap, t, l.read(0)));
    return true;
}

bool lift_movbe(Lifter& l) {
    Type const t = l.type(0);
    l.write(0, l.b.unary(Opcode::bswap, t, l.read(1, t)));
    return true;
}

bool lift_crc32(Lifter& l) {
    ValueId const data = l.b.zext(Type::i64, l.read(1));
    ValueId const crc = l.b.zext(Type::i64, l.read(0, Type::i32));
    ValueId const result = l.call(HelperId::crc32c, crc, data, l.constant(ir::size_of(l.type(1))));
    l.put_gpr(l.register_number(0), l.b.trunc(Type::i32, result));
    return true;
}

} // namespace vmm::tcg::x86
