// Control transfer: jumps, calls, returns, loops, software interrupts, system calls.
#include "vmm/tcg/guest/x86/handlers.h"
#include "vmm/tcg/guest/x86/lifter.h"

namespace vmm::tcg::x86 {

using namespace vmm::x86;

// --- near targets
// In 64-bit code, and in flat 32-bit code with 32-bit operands, relative targets are plain in-page offsets. Everywhere
// else the target is masked to the operand size and checked against CS's limit, which takes an indirect jump.

static std::optional<std::int32_t> plain_target(Lifter const& l) {
    bool const plain = l.mode.is64() || (l.mode.is(Mode::flat) && l.d.operand_bytes() == 4);
    std::int64_t const target = l.next() + l.immediate(0);
    if (!plain || target != std::int32_t(target)) return std::nullopt;
    return std::int32_t(target);
}

// Value of the relative target of the current instruction, i64.
static ValueId masked_target(Lifter& l) {
    ValueId const target = l.b.lea(Type::i64, l.b.pc(l.next()), none, 0, l.immediate(0));
    return l.b.zext(Type::i64, l.b.trunc(ir::int_type(l.d.operand_bytes()), target));
}

// In modes where CS has a limit, #GP(0) for targets beyond it.
static ValueId checked(Lifter& l, ValueId target) {
    if (l.mode.is64() || l.mode.is(Mode::flat)) return target;
    return l.call(HelperId::check_code_target, target);
}

static bool end_indirect(Lifter& l, ValueId target, ir::IndirectKind kind) {
    l.end(ir::Indirect{.target = target, .kind = kind, .return_to = l.next()});
    return true;
}

static bool is_far(Lifter const& l) { return l.d.insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR; }

// --- JMP, CALL, RET

static bool far_transfer(Lifter& l, HelperId id) {
    Type const t = ir::int_type(l.d.operand_bytes());
    unsigned const bytes = ir::size_of(t);
    ValueId selector, offset;
    if (l.is_memory(0)) {
        offset = l.b.load(t, l.address(0, bytes, false), 0, l.base_hint(0));
        selector = l.b.load(Type::i16, l.address(0, 2, false, bytes), 0, l.base_hint(0));
        offset = l.b.zext(Type::i64, offset);
        selector = l.b.zext(Type::i64, selector);
    } else {
        offset = l.constant(l.operand(0).ptr.offset);
        selector = l.constant(l.operand(0).ptr.segment);
    }
    return l.call_and_end(id, selector, offset, l.constant(bytes));
}

bool lift_jmp(Lifter& l) {
    if (is_far(l)) return far_transfer(l, HelperId::far_jump);
    if (!l.is_immediate(0)) return end_indirect(l, checked(l, l.b.zext(Type::i64, l.read(0))), ir::IndirectKind::jump);
    if (auto target = plain_target(l)) return l.end(ir::Jump{.target = *target}), true;
    return end_indirect(l, checked(l, masked_target(l)), ir::IndirectKind::jump);
}

bool lift_call(Lifter& l) {
    if (is_far(l)) return far_transfer(l, HelperId::far_call);
    Type const t = ir::int_type(l.d.operand_bytes());
    std::optional<std::int32_t> const plain = l.is_immediate(0) ? plain_target(l) : std::nullopt;
    ValueId target = none;
    if (!plain) target = checked(l, l.is_immediate(0) ? masked_target(l) : l.b.zext(Type::i64, l.read(0)));
    l.push(l.b.trunc(t, l.b.pc(l.next())));
    if (!plain) return end_indirect(l, target, ir::IndirectKind::call);
    l.end(ir::Jump{.target = *plain, .is_call = true, .return_to = l.next()});
    return true;
}

bool lift_ret(Lifter& l) {
    std::int64_t const release = l.operand_count() ? l.immediate(0) & 0xffff : 0;
    Type const t = ir::int_type(l.d.operand_bytes());
    if (is_far(l)) return l.call_and_end(HelperId::far_return, l.constant(ir::size_of(t)), l.constant(release));
    ValueId const target = checked(l, l.b.zext(Type::i64, l.stack_load(t)));
    l.adjust_stack(ir::size_of(t) + release);
    return end_indirect(l, target, ir::IndirectKind::ret);
}

// --- conditional

bool lift_jcc(Lifter& l) {
    Cond const cc = Cond(l.d.insn.opcode & 0xf);
    if (auto target = plain_target(l)) {
        l.end(ir::Branch{.cc = cc, .taken = *target, .not_taken = l.next()});
        return true;
    }
    ValueId const target = l.b.select_cc(Type::i64, cc, masked_target(l), l.guest_pc(l.next()));
    return end_indirect(l, checked(l, target), ir::IndirectKind::jump);
}

// Jumps when `condition` is not 0 (or, inverted, is 0). `commit` makes the instruction's register changes: after the
// target check.
template <class Commit> static bool jump_on(Lifter& l, ValueId condition, bool when_zero, Commit commit) {
    Type const t = l.b.type_of(condition);
    if (auto target = plain_target(l)) {
        commit();
        std::int32_t const to[] = {*target, l.next()};
        l.end(ir::BranchNonZero{.value = condition, .type = t, .taken = to[when_zero], .not_taken = to[!when_zero]});
        return true;
    }
    ValueId const to[] = {masked_target(l), l.guest_pc(l.next())};
    ValueId target = l.b.emit({.op = Opcode::select_nz,
                               .type = Type::i64,
                               .aux = std::uint8_t(t),
                               .a = condition,
                               .b = to[when_zero],
                               .c = to[!when_zero]});
    target = checked(l, target);
    commit();
    return end_indirect(l, target, ir::IndirectKind::jump);
}

bool lift_jcxz(Lifter& l) {
    return jump_on(l, l.gpr(ir::int_type(l.d.address_bytes()), rcx), true, [] {});
}

static bool loop(Lifter& l, std::optional<Cond> also) {
    Type const t = ir::int_type(l.d.address_bytes());
    ValueId const count = l.b.lea(t, l.gpr(t, rcx), none, 0, -1);
    ValueId condition = count;
    if (also)
        condition = l.b.emit({.op = Opcode::select_nz,
                              .type = Type::i8,
                              .aux = std::uint8_t(t),
                              .a = count,
                              .b = l.b.setcc(*also),
                              .c = l.constant(0, Type::i8)});
    return jump_on(l, condition, false, [&] { l.put_gpr(rcx, count); });
}
bool lift_loop(Lifter& l) { return loop(l, std::nullopt); }
bool lift_loope(Lifter& l) { return loop(l, Cond::e); }
bool lift_loopne(Lifter& l) { return loop(l, Cond::ne); }

// --- interrupts and system calls

static bool software_interrupt(Lifter& l, HelperId id, std::int64_t vector) {
    return l.call_and_end(id, l.constant(vector), l.constant(l.d.insn.length));
}
bool lift_int(Lifter& l) { return software_interrupt(l, HelperId::interrupt, l.immediate(0) & 0xff); }
bool lift_int3(Lifter& l) { return software_interrupt(l, HelperId::interrupt3, vec::bp); }
bool lift_int1(Lifter& l) { return software_interrupt(l, HelperId::interrupt1, vec::db); }
bool lift_into(Lifter& l) { return software_interrupt(l, HelperId::into, vec::of); }
bool lift_iret(Lifter& l) { return l.call_and_end(HelperId::iret, l.constant(l.d.operand_bytes())); }

// SYSCALL is #UD outside long mode on Intel; AMD has it in protected mode too, the helper knows which.
bool lift_syscall(Lifter& l) { return l.call_and_end(HelperId::syscall, l.constant(l.mode.is64())); }

bool lift_sysret(Lifter& l) {
    if (!l.mode.is(Mode::protected_mode) || l.mode.cpl()) return l.raise(vec::gp, 0);
    return l.call_and_end(HelperId::sysret, l.constant(l.wide_operand() ? 8 : 4));
}

bool lift_sysenter(Lifter& l) {
    if (!l.mode.is(Mode::protected_or_vm)) return l.raise(vec::gp, 0);
    return l.call_and_end(HelperId::sysenter);
}

bool lift_sysexit(Lifter& l) {
    if (!l.mode.is(Mode::protected_mode) || l.mode.cpl()) return l.raise(vec::gp, 0);
    return l.call_and_end(HelperId::sysexit, l.constant(l.wide_operand() ? 8 : 4));
}

bool lift_ud(Lifter& l) { return l.undefined(); }

} // namespace vmm::tcg::x86
