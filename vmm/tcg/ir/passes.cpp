#include "vmm/tcg/ir/passes.h"

#include "vmm/tcg/ir/op_info.h"

#include <optional>
#include <vector>

namespace vmm::tcg::ir {

namespace {

ValueId* terminal_value(Terminal& terminal) {
    if (auto* t = std::get_if<BranchNonZero>(&terminal)) return &t->value;
    if (auto* t = std::get_if<Indirect>(&terminal)) return &t->target;
    return nullptr;
}

bool has_effect(Inst const& inst) {
    OpTraits const op = traits(inst.op);
    return op.effect || op.memory || op.may_fault || op.vector || inst.sets_flags;
}

// --- dead flags

// A shift whose masked count is known not to be 0 defines all flags.
bool defines_all(Block const& block, Inst const& inst) {
    ValueId count = none;
    switch (inst.op) {
    case Opcode::shl:
    case Opcode::shr:
    case Opcode::sar: count = inst.b; break;
    case Opcode::shld:
    case Opcode::shrd: count = inst.c; break;
    default: return false;
    }
    Inst const& value = block.insts[count];
    return value.op == Opcode::constant && (value.imm & (inst.type == Type::i64 ? 63 : 31));
}

bool reads_flags(Block const& block, Inst const& inst) {
    if (traits(inst.op).always_reads_flags) return true;
    return inst.sets_flags && traits(inst.op).reads_flags && !defines_all(block, inst);
}

// --- constants

std::uint64_t mask(Type t) { return t == Type::i64 ? ~std::uint64_t(0) : (std::uint64_t(1) << bits_of(t)) - 1; }
std::int64_t sign_extend(Type t, std::uint64_t v) {
    unsigned const unused = 64 - bits_of(t);
    return std::int64_t(v << unused) >> unused;
}

class Folder {
public:
    explicit Folder(Block& block) : block_(block) {}
    void run() {
        for (Inst& inst : block_.insts)
            if (!inst.sets_flags && inst.type <= Type::i64) fold(inst);
    }

private:
    std::optional<std::uint64_t> constant(ValueId v) const {
        if (v == none || block_.insts[v].op != Opcode::constant) return std::nullopt;
        return std::uint64_t(block_.insts[v].imm) & mask(block_.insts[v].type);
    }
    static void become(Inst& inst, std::uint64_t v) {
        inst = {.op = Opcode::constant, .type = inst.type, .imm = sign_extend(inst.type, v)};
    }
    static void become_lea(Inst& inst, ValueId base, std::int64_t displacement) {
        inst = {.op = Opcode::lea, .type = inst.type, .a = base, .imm = displacement};
    }

    void fold(Inst& inst) {
        auto const a = constant(inst.a), b = constant(inst.b);
        switch (inst.op) {
        case Opcode::zext:
        case Opcode::trunc:
            if (a) become(inst, *a);
            break;
        case Opcode::sext:
            if (a) become(inst, std::uint64_t(sign_extend(Type(inst.aux), *a)));
            break;
        case Opcode::lea: fold_lea(inst); break;
        default:
            if (a && b) {
                if (auto v = evaluate(inst, *a, *b)) become(inst, *v);
            } else if (inst.op == Opcode::add && (a || b)) {
                become_lea(inst, a ? inst.b : inst.a, sign_extend(inst.type, a ? *a : *b));
                fold_lea(inst);
            } else if (inst.op == Opcode::sub && b) {
                become_lea(inst, inst.a, sign_extend(inst.type, std::uint64_t(0) - *b));
                fold_lea(inst);
            }
        }
    }

    static std::optional<std::uint64_t> evaluate(Inst const& inst, std::uint64_t a, std::uint64_t b) {
        unsigned const count = unsigned(b) & (inst.type == Type::i64 ? 63 : 31);
        switch (inst.op) {
        case Opcode::add: return a + b;
        case Opcode::sub: return a - b;
        case Opcode::and_: return a & b;
        case Opcode::or_: return a | b;
        case Opcode::xor_: return a ^ b;
        case Opcode::shl: return a << count;
        case Opcode::shr: return a >> count;
        case Opcode::sar: return std::uint64_t(sign_extend(inst.type, a) >> count);
        default: return std::nullopt;
        }
    }

    void fold_lea(Inst& inst) {
        if (auto index = constant(inst.b)) {
            inst.imm = std::int64_t(std::uint64_t(inst.imm) + (*index << inst.aux));
            inst.b = none;
            inst.aux = 0;
        }
        if (auto base = constant(inst.a); base && inst.b == none) return become(inst, *base + std::uint64_t(inst.imm));
        Inst const& inner = block_.insts[inst.a];
        if (inner.op == Opcode::pc && inst.type == Type::i64 && inst.b == none) return fold_pc(inst, inner);
        // lea of lea: one of the two must have its index place free.
        if (inner.op != Opcode::lea || inner.type != inst.type) return;
        if (inst.b != none && inner.b != none) return;
        std::uint64_t const displacement = std::uint64_t(inst.imm) + std::uint64_t(inner.imm);
        if (inst.b == none) inst.b = inner.b, inst.aux = inner.aux;
        inst.a = inner.a;
        inst.imm = sign_extend(inst.type, displacement);
    }

    static void fold_pc(Inst& inst, Inst const& inner) {
        std::int64_t const offset = inner.imm + inst.imm;
        if (offset == std::int32_t(offset)) inst = {.op = Opcode::pc, .type = Type::i64, .imm = offset};
    }

    Block& block_;
};

} // namespace

void eliminate_dead_code(Block& block, std::vector<ValueId>& moved) {
    std::vector<Inst>& insts = block.insts;
    // First: none or used; then where each one goes.
    constexpr ValueId used = 0;
    moved.assign(insts.size(), none);
    auto use = [&](ValueId v) {
        if (v != none) moved[v] = used;
    };
    if (ValueId const* v = terminal_value(block.terminal)) use(*v);
    std::size_t kept = insts.size(); // so many at the beginning stay where they are
    for (std::size_t i = insts.size(); i-- > 0;) {
        if (moved[i] == none && !has_effect(insts[i])) {
            kept = i;
            continue;
        }
        moved[i] = used;
        use(insts[i].a), use(insts[i].b), use(insts[i].c);
    }
    if (kept == insts.size()) return;
    auto move = [&](ValueId& v) {
        if (v != none) v = moved[v];
    };
    for (std::size_t i = 0; i < kept; ++i) moved[i] = ValueId(i);
    for (std::size_t i = kept + 1; i < insts.size(); ++i) {
        if (moved[i] == none) continue;
        moved[i] = ValueId(kept);
        Inst& inst = insts[kept++] = insts[i];
        move(inst.a), move(inst.b), move(inst.c);
    }
    insts.resize(kept);
    if (ValueId* v = terminal_value(block.terminal)) move(*v);
}

void fold_constants(Block& block) { Folder(block).run(); }

void eliminate_dead_flags(Block& block) {
    bool live = true; // whether the flags after the instruction at hand are wanted
    for (std::size_t i = block.insts.size(); i-- > 0;) {
        Inst& inst = block.insts[i];
        OpTraits const op = traits(inst.op);
        // A vector comparison is nothing without its flags but may still touch MXCSR.
        if (!live && inst.op != Opcode::vec_to_gpr) {
            inst.sets_flags = false;
            // Nothing but the flags: an unused constant in its place goes with the dead code.
            if (inst.op == Opcode::put_flags) inst = {.op = Opcode::constant};
        }
        if (inst.sets_flags || inst.op == Opcode::put_flags) live = false;
        if (reads_flags(block, inst) || op.may_fault || op.memory) live = true;
    }
}

void Passes::optimize(Block& block) {
    fold_constants(block);
    eliminate_dead_flags(block);
    eliminate_dead_code(block, scratch_);
}

} // namespace vmm::tcg::ir
