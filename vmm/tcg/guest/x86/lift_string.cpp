// String instructions: single ones inline, repeated ones and port transfers as helpers.
#include "vmm/tcg/guest/x86/handlers.h"
#include "vmm/tcg/guest/x86/lifter.h"
#include "vmm/tcg/guest/x86/string_op.h"

#include <bit>

namespace vmm::tcg::x86 {

using namespace vmm::x86;

namespace {

struct StringInstruction {
    Type element, address;
    Repeat repeat;
};

// The mnemonic's last letter would tell the size too; for the string forms it is the operand size but for bytes.
StringInstruction describe(Lifter const& l) {
    bool const byte = !(l.d.insn.opcode & 1);
    Repeat const repeat = l.d.repne() ? Repeat::repne : l.d.rep() ? Repeat::rep : Repeat::once;
    return {byte ? Type::i8 : ir::int_type(l.d.operand_bytes()), ir::int_type(l.d.address_bytes()), repeat};
}

bool call_helper(Lifter& l, StringInstruction const& s, HelperId id) {
    StringOp const op{std::uint8_t(ir::size_of(s.element)), std::uint8_t(ir::size_of(s.address)), l.data_segment(),
                      s.repeat};
    return l.call_and_end(id, l.constant(op.encode()), l.guest_pc(l.start));
}

// With `id64`, which does the same in 64-bit code: goes on without the engine, or to this instruction again after an
// interruption.
bool call_helper(Lifter& l, StringInstruction const& s, HelperId id, HelperId id64) {
    if (!l.mode.is64() || s.address != Type::i64 || l.mode.is(Mode::single)) return call_helper(l, s, id);
    StringOp const op{std::uint8_t(ir::size_of(s.element)), 8, l.data_segment(), s.repeat};
    ValueId const done = l.call(id64, l.constant(op.encode()));
    l.end(ir::BranchNonZero{.value = done, .type = Type::i64, .taken = l.next(), .not_taken = l.start});
    return true;
}

ValueId source(Lifter& l, StringInstruction const& s) {
    ValueId const offset = l.b.zext(Type::i64, l.gpr(s.address, rsi));
    return l.linear(l.data_segment(), offset, ir::size_of(s.element), false);
}

ValueId destination(Lifter& l, StringInstruction const& s, bool write) {
    ValueId const offset = l.b.zext(Type::i64, l.gpr(s.address, rdi));
    return l.linear(es, offset, ir::size_of(s.element), write);
}

// Element size, negated when DF is set.
ValueId step(Lifter& l, StringInstruction const& s) {
    unsigned const bytes = ir::size_of(s.element), df_bit = std::countr_zero(flag::df);
    unsigned const shift = df_bit - unsigned(std::countr_zero(2 * bytes));
    ValueId const flags = l.b.get(Type::i64, slot::rflags);
    ValueId const moved = l.b.binary(Opcode::shr, Type::i64, flags, l.constant(shift, Type::i8));
    ValueId const twice = l.b.binary(Opcode::and_, Type::i64, moved, l.constant(2 * bytes));
    return l.b.binary(Opcode::sub, Type::i64, l.constant(bytes), twice);
}

void advance(Lifter& l, StringInstruction const& s, ValueId by, unsigned r) {
    l.put_gpr(r, l.b.binary(Opcode::add, s.address, l.gpr(s.address, r), l.b.trunc(s.address, by)));
}

} // namespace

bool lift_movs(Lifter& l) {
    StringInstruction const s = describe(l);
    if (s.repeat != Repeat::once) return call_helper(l, s, HelperId::rep_movs, HelperId::rep_movs64);
    ValueId const value = l.b.load(s.element, source(l, s), 0, rsi);
    l.b.store(s.element, destination(l, s, true), value, 0, rdi);
    ValueId const by = step(l, s);
    advance(l, s, by, rsi);
    advance(l, s, by, rdi);
    return true;
}

bool lift_stos(Lifter& l) {
    StringInstruction const s = describe(l);
    if (s.repeat != Repeat::once) return call_helper(l, s, HelperId::rep_stos, HelperId::rep_stos64);
    l.b.store(s.element, destination(l, s, true), l.gpr(s.element, rax), 0, rdi);
    advance(l, s, step(l, s), rdi);
    return true;
}

bool lift_lods(Lifter& l) {
    StringInstruction const s = describe(l);
    if (s.repeat != Repeat::once) return call_helper(l, s, HelperId::rep_lods);
    ValueId const value = l.b.load(s.element, source(l, s), 0, rsi);
    advance(l, s, step(l, s), rsi);
    l.put_gpr(rax, value);
    return true;
}

bool lift_cmps(Lifter& l) {
    StringInstruction const s = describe(l);
    if (s.repeat != Repeat::once) return call_helper(l, s, HelperId::rep_cmps);
    // The second operand is read first, as faults show on hardware.
    ValueId const second = l.b.load(s.element, destination(l, s, false), 0, rdi);
    ValueId const first = l.b.load(s.element, source(l, s), 0, rsi);
    ValueId const by = step(l, s);
    advance(l, s, by, rsi);
    advance(l, s, by, rdi);
    l.b.binary(Opcode::sub, s.element, first, second, true);
    return true;
}

bool lift_scas(Lifter& l) {
    StringInstruction const s = describe(l);
    if (s.repeat != Repeat::once) return call_helper(l, s, HelperId::rep_scas);
    ValueId const value = l.b.load(s.element, destination(l, s, false), 0, rdi);
    advance(l, s, step(l, s), rdi);
    l.b.binary(Opcode::sub, s.element, l.gpr(s.element, rax), value, true);
    return true;
}

// Ports transfer 1, 2 or 4 bytes; REX.W changes nothing.
static bool port_string(Lifter& l, HelperId id) {
    StringInstruction s = describe(l);
    if (s.element == Type::i64) s.element = Type::i32;
    return call_helper(l, s, id);
}
bool lift_ins(Lifter& l) { return port_string(l, HelperId::rep_ins); }
bool lift_outs(Lifter& l) { return port_string(l, HelperId::rep_outs); }

// These two mnemonics name SSE2 instructions as well.
bool lift_movsd(Lifter& l) { return l.d.insn.meta.isa_set == ZYDIS_ISA_SET_I386 ? lift_movs(l) : lift_vector(l); }
bool lift_cmpsd(Lifter& l) { return l.d.insn.meta.isa_set == ZYDIS_ISA_SET_I386 ? lift_cmps(l) : lift_vector(l); }

} // namespace vmm::tcg::x86
