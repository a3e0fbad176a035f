// Data movement: MOV and its kin, exchanges, the stack, conversions, segment register moves.
#include "vmm/tcg/guest/x86/handlers.h"
#include "vmm/tcg/guest/x86/lifter.h"

namespace vmm::tcg::x86 {

using namespace vmm::x86;

static Cond condition(Lifter const& l) { return Cond(l.d.insn.opcode & 0xf); }
static ZydisRegisterClass register_class(Lifter const& l, unsigned i) {
    return l.is_register(i) ? ZydisRegisterGetClass(l.operand(i).reg.value) : ZYDIS_REGCLASS_INVALID;
}

// --- MOV

static bool mov_to_control(Lifter& l, HelperId id) {
    if (l.mode.cpl()) return l.raise(vec::gp, 0);
    ValueId const value = l.b.zext(Type::i64, l.read(1));
    return l.call_and_end(id, l.constant(l.register_number(0)), value);
}

static bool mov_from_control(Lifter& l, HelperId id) {
    if (l.mode.cpl()) return l.raise(vec::gp, 0);
    l.write(0, l.b.trunc(l.type(0), l.call(id, l.constant(l.register_number(1)))));
    return true;
}

static bool mov_to_segment(Lifter& l) {
    ValueId const selector = l.b.zext(Type::i64, l.read(1, Type::i16));
    return l.call_and_end(HelperId::load_segment, l.constant(l.register_number(0)), selector);
}

// Memory destinations are 16 bits whatever the operand size; registers get the zero-extended selector.
static bool mov_from_segment(Lifter& l) {
    ValueId const selector = l.b.get(Type::i16, slot::segment_selector(l.register_number(1)));
    if (l.is_memory(0)) return l.store(0, Type::i16, selector), true;
    l.write(0, l.b.zext(l.type(0), selector));
    return true;
}

bool lift_mov(Lifter& l) {
    switch (register_class(l, 0)) {
    case ZYDIS_REGCLASS_SEGMENT: return mov_to_segment(l);
    case ZYDIS_REGCLASS_CONTROL: return mov_to_control(l, HelperId::mov_to_cr);
    case ZYDIS_REGCLASS_DEBUG: return mov_to_control(l, HelperId::mov_to_dr);
    case ZYDIS_REGCLASS_TEST: return l.undefined();
    default: break;
    }
    switch (register_class(l, 1)) {
    case ZYDIS_REGCLASS_SEGMENT: return mov_from_segment(l);
    case ZYDIS_REGCLASS_CONTROL: return mov_from_control(l, HelperId::mov_from_cr);
    case ZYDIS_REGCLASS_DEBUG: return mov_from_control(l, HelperId::mov_from_dr);
    case ZYDIS_REGCLASS_TEST: return l.undefined();
    default: break;
    }
    l.write(0, l.read(1, l.type(0)));
    return true;
}

bool lift_movzx(Lifter& l) { return l.write(0, l.b.zext(l.type(0), l.read(1))), true; }

// MOVSXD without REX.W moves as MOV does.
bool lift_movsx(Lifter& l) {
    Type const from = l.type(1) > l.type(0) ? l.type(0) : l.type(1);
    return l.write(0, l.b.sext(l.type(0), l.read(1, from))), true;
}

bool lift_movnti(Lifter& l) {
    l.store(0, l.type(1), l.read(1), ir::mem_non_temporal);
    return true;
}

bool lift_lea(Lifter& l) {
    if (!l.is_memory(1)) return l.undefined();
    bool const shortened = l.type(0) == Type::i32 && l.d.address_bytes() == 8;
    l.write(0, shortened ? l.address_sum(1, Type::i32) : l.b.trunc(l.type(0), l.effective_address(1)));
    return true;
}

bool lift_cmov(Lifter& l) {
    Type const t = l.type(0);
    ValueId const source = l.read(1, t);
    l.write(0, l.b.select_cc(t, condition(l), source, l.read(0)));
    return true;
}

bool lift_setcc(Lifter& l) { return l.write(0, l.b.setcc(condition(l))), true; }

// --- exchanges

bool lift_xchg(Lifter& l) {
    unsigned const memory = l.is_memory(1) ? 1 : 0, other = 1 - memory;
    Type const t = l.type(0);
    ValueId const value = l.read(other);
    if (l.is_memory(memory)) return l.write(other, l.rmw(memory, Opcode::rmw_xchg, t, value, false)), true;
    ValueId const first = l.read(memory);
    l.write(memory, value);
    l.write(other, first);
    return true;
}

bool lift_xadd(Lifter& l) {
    Type const t = l.type(0);
    ValueId const source = l.read(1);
    if (l.is_memory(0)) return l.write(1, l.rmw(0, Opcode::rmw_add, t, source)), true;
    ValueId const old = l.read(0);
    ValueId const sum = l.b.binary(Opcode::add, t, old, source, true);
    l.write(1, old);
    l.write(0, sum);
    return true;
}

// The accumulator changes only when the comparison fails (its upper half too).
static void put_compared(Lifter& l, Type t, ValueId old) {
    Type const whole = t == Type::i32 ? Type::i64 : t;
    l.put_gpr(rax, l.b.select_cc(whole, Cond::e, l.gpr(whole, rax), l.b.zext(whole, old)));
}

bool lift_cmpxchg(Lifter& l) {
    Type const t = l.type(0);
    ValueId const source = l.read(1), accumulator = l.gpr(t, rax);
    if (l.is_memory(0)) {
        put_compared(l, t, l.rmw(0, Opcode::cmpxchg, t, accumulator, true, source));
        return true;
    }
    ValueId const old = l.read(0);
    l.b.binary(Opcode::sub, t, accumulator, old, true);
    if (t != Type::i32) {
        ValueId const result = l.b.select_cc(t, Cond::e, source, old);
        put_compared(l, t, old);
        l.write(0, result);
        return true;
    }
    // Processors leave the whole destination alone when the comparison fails.
    ValueId const whole = l.gpr(Type::i64, l.register_number(0));
    ValueId const result = l.b.select_cc(Type::i64, Cond::e, l.b.zext(Type::i64, source), whole);
    put_compared(l, t, old);
    l.put_gpr(l.register_number(0), result);
    return true;
}

static bool compare_exchange_wide(Lifter& l, unsigned bytes) {
    if (!l.is_memory(0)) return l.undefined();
    l.call(HelperId::cmpxchg_wide, l.address(0, bytes, true), l.constant(bytes));
    return true;
}
bool lift_cmpxchg8b(Lifter& l) { return compare_exchange_wide(l, 8); }
bool lift_cmpxchg16b(Lifter& l) { return compare_exchange_wide(l, 16); }

// --- the stack

// Bytes a PUSH, POP, CALL moves: the operand size.
static Type stack_operand(Lifter const& l) { return ir::int_type(l.d.operand_bytes()); }

bool lift_push(Lifter& l) {
    Type const t = stack_operand(l);
    if (register_class(l, 0) == ZYDIS_REGCLASS_SEGMENT) {
        ValueId const selector = l.b.get(Type::i16, slot::segment_selector(l.register_number(0)));
        // 64-bit code stores the whole slot, other code two bytes of it, as hardware does.
        if (l.mode.is64()) return l.push(l.b.zext(t, selector)), true;
        std::int64_t const bytes = ir::size_of(t);
        l.stack_store(selector, -bytes);
        l.adjust_stack(-bytes);
    } else {
        l.push(l.read(0, t));
    }
    return true;
}

bool lift_pop(Lifter& l) {
    Type const t = stack_operand(l);
    std::int64_t const bytes = ir::size_of(t);
    if (register_class(l, 0) == ZYDIS_REGCLASS_SEGMENT)
        return l.call_and_end(HelperId::pop_segment, l.constant(l.register_number(0)), l.constant(bytes));
    ValueId const value = l.stack_load(t);
    if (l.is_memory(0)) {
        // An address based on the stack pointer uses its value after the pop.
        bool const from_stack = l.base_hint(0) == rsp;
        l.b.store(t, l.address(0, unsigned(bytes), true, from_stack ? bytes : 0), value, 0, l.base_hint(0));
        l.adjust_stack(bytes);
        return true;
    }
    l.adjust_stack(bytes);
    l.write(0, value);
    return true;
}

bool lift_pusha(Lifter& l) {
    Type const t = stack_operand(l);
    std::int64_t const bytes = ir::size_of(t);
    for (unsigned r = 0; r < 8; ++r) l.stack_store(l.gpr(t, r), -bytes * (r + 1));
    l.adjust_stack(-bytes * 8);
    return true;
}

bool lift_popa(Lifter& l) {
    Type const t = stack_operand(l);
    std::int64_t const bytes = ir::size_of(t);
    ValueId values[8];
    for (unsigned r = 8; r-- > 0;)
        if (r != rsp) values[r] = l.stack_load(t, bytes * (7 - r));
    for (unsigned r = 0; r < 8; ++r)
        if (r != rsp) l.put_gpr(r, values[r]);
    l.adjust_stack(bytes * 8);
    return true;
}

bool lift_enter(Lifter& l) {
    Type const t = stack_operand(l), stack = l.stack_type();
    std::int64_t const bytes = ir::size_of(t), allocation = l.immediate(0) & 0xffff;
    unsigned const level = unsigned(l.immediate(1)) & 31;
    auto frame = [&] { return l.b.lea(stack, l.gpr(stack, rsp), none, 0, -bytes); };
    l.stack_store(l.gpr(t, rbp), -bytes);
    for (unsigned i = 1; i < level; ++i) {
        ValueId const at = l.b.lea(stack, l.gpr(stack, rbp), none, 0, -bytes * i);
        ValueId const link = l.b.load(t, l.linear(ss, l.b.zext(Type::i64, at), unsigned(bytes), false), 0, rbp);
        l.stack_store(link, -bytes * (i + 1));
    }
    if (level) {
        ValueId const pointer = t < stack ? l.b.trunc(t, frame()) : l.b.zext(t, frame());
        l.stack_store(pointer, -bytes * (level + 1));
    }
    // The new stack top must be writable.
    std::int64_t const size = bytes * (level + 1) + allocation;
    l.b.load(t, l.stack_address(-size, unsigned(bytes), true), ir::mem_for_write, rsp);
    ValueId const base = frame();
    l.adjust_stack(-size);
    l.put_gpr(rbp, t < stack ? l.b.trunc(t, base) : base);
    return true;
}

bool lift_leave(Lifter& l) {
    Type const t = stack_operand(l), stack = l.stack_type();
    std::int64_t const bytes = ir::size_of(t);
    ValueId const frame = l.gpr(stack, rbp);
    ValueId const saved = l.b.load(t, l.linear(ss, l.b.zext(Type::i64, frame), unsigned(bytes), false), 0, rbp);
    l.put_gpr(rsp, l.b.lea(stack, frame, none, 0, bytes));
    l.put_gpr(rbp, saved);
    return true;
}

// --- flags and conversions

bool lift_xlat(Lifter& l) {
    Type const t = ir::int_type(l.d.address_bytes());
    ValueId const offset = l.b.lea(t, l.gpr(t, rbx), l.b.zext(t, l.gpr(Type::i8, rax)), 0, 0);
    ValueId const at = l.linear(l.data_segment(), l.b.zext(Type::i64, offset), 1, false);
    l.put_gpr(rax, l.b.load(Type::i8, at, 0, rbx));
    return true;
}

bool lift_lahf(Lifter& l) {
    ValueId const flags = l.b.trunc(Type::i8, l.b.emit({.op = Opcode::get_flags, .type = Type::i64}));
    l.b.put(Type::i8, slot::gpr(rax) + 1, l.b.binary(Opcode::or_, Type::i8, flags, l.constant(flag::one, Type::i8)));
    return true;
}

bool lift_sahf(Lifter& l) {
    ValueId const flags = l.b.emit({.op = Opcode::get_flags, .type = Type::i64});
    ValueId const kept = l.b.binary(Opcode::and_, Type::i64, flags, l.constant(flag::of));
    ValueId const loaded = l.b.zext(Type::i64, l.b.get(Type::i8, slot::gpr(rax) + 1));
    l.b.emit({.op = Opcode::put_flags, .a = l.b.binary(Opcode::or_, Type::i64, kept, loaded)});
    return true;
}

static bool widen_accumulator(Lifter& l, Type from, Type to) {
    l.put_gpr(rax, l.b.sext(to, l.gpr(from, rax)));
    return true;
}
bool lift_cbw(Lifter& l) { return widen_accumulator(l, Type::i8, Type::i16); }
bool lift_cwde(Lifter& l) { return widen_accumulator(l, Type::i16, Type::i32); }
bool lift_cdqe(Lifter& l) { return widen_accumulator(l, Type::i32, Type::i64); }

static bool sign_into_rdx(Lifter& l, Type t) {
    l.put_gpr(rdx, l.b.binary(Opcode::sar, t, l.gpr(t, rax), l.constant(ir::bits_of(t) - 1, Type::i8)));
    return true;
}
bool lift_cwd(Lifter& l) { return sign_into_rdx(l, Type::i16); }
bool lift_cdq(Lifter& l) { return sign_into_rdx(l, Type::i32); }
bool lift_cqo(Lifter& l) { return sign_into_rdx(l, Type::i64); }

// --- far pointers: offset, then selector
static bool load_far_pointer(Lifter& l, Seg segment) {
    Type const t = l.type(0);
    unsigned const bytes = ir::size_of(t);
    if (!l.is_memory(1)) return l.undefined();
    ValueId const offset = l.b.load(t, l.address(1, bytes, false), 0, l.base_hint(1));
    ValueId const selector = l.b.load(Type::i16, l.address(1, 2, false, bytes), 0, l.base_hint(1));
    std::int64_t const where = segment | std::int64_t(l.register_number(0)) << 8 | std::int64_t(bytes) << 16;
    return l.call_and_end(HelperId::load_far_pointer, l.constant(where), l.b.zext(Type::i64, selector),
                          l.b.zext(Type::i64, offset));
}
bool lift_les(Lifter& l) { return load_far_pointer(l, es); }
bool lift_lds(Lifter& l) { return load_far_pointer(l, ds); }
bool lift_lss(Lifter& l) { return load_far_pointer(l, ss); }
bool lift_lfs(Lifter& l) { return load_far_pointer(l, fs); }
bool lift_lgs(Lifter& l) { return load_far_pointer(l, gs); }

} // namespace vmm::tcg::x86
