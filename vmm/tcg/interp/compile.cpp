#include "vmm/tcg/interp/compile.h"

#include "vmm/tcg/ir/op_info.h"

#include <algorithm>

namespace vmm::tcg::interp {

using namespace ir;

namespace {

constexpr std::uint32_t no_index = ~0u;

bool writes_two_words(Opcode op) {
    return op == Opcode::umul2 || op == Opcode::smul2 || op == Opcode::udiv2 || op == Opcode::sdiv2;
}

// --- the ends of blocks

Code const* end_dispatch(EngineContext&, Code const* c) {
    at<Runtime>(c->dst).result = {RunEnd::dispatch, nullptr};
    return nullptr;
}
Code const* end_jump(EngineContext&, Code const* c) {
    at<Runtime>(c->dst).result = {RunEnd::next, static_cast<LinkSite*>(const_cast<void*>(c->a))};
    return nullptr;
}
Code const* end_branch(EngineContext& e, Code const* c) {
    void const* site = condition(e, Cond(c->imm)) ? c->a : c->b;
    at<Runtime>(c->dst).result = {RunEnd::next, static_cast<LinkSite*>(const_cast<void*>(site))};
    return nullptr;
}
template <class U> Code const* end_branch_nonzero(EngineContext&, Code const* c) {
    void const* site = at<U>(c->c) ? c->a : c->b;
    at<Runtime>(c->dst).result = {RunEnd::next, static_cast<LinkSite*>(const_cast<void*>(site))};
    return nullptr;
}
Code const* end_indirect(EngineContext& e, Code const* c) {
    Runtime& runtime = at<Runtime>(c->dst);
    *runtime.guest.pc = at<std::uint64_t>(c->a) & runtime.guest.pc_mask(e);
    runtime.result = {RunEnd::next, nullptr};
    return nullptr;
}

template <bool faults, unsigned args> Code const* call_helper(EngineContext& e, Code const* c) {
    std::uint64_t a = 0, b = 0, d = 0;
    if constexpr (args > 0) a = at<std::uint64_t>(c->a);
    if constexpr (args > 1) b = at<std::uint64_t>(c->b);
    if constexpr (args > 2) d = at<std::uint64_t>(c->c);
    std::uint64_t value = reinterpret_cast<HelperFunction>(c->imm)(e, a, b, d);
    if constexpr (faults)
        if (e.fault_pending) return nullptr;
    if (c->dst) at<std::uint64_t>(c->dst) = value;
    return c + 1;
}

// Compiles one block. Slots (guest state) are used in place where that cannot be observed:
//  - a `get` needs no copy when its slot stays unchanged up to the value's last use;
//  - an operation writes straight into the slot its value is put to when nothing between could see the difference.
class Compiler {
public:
    Compiler(Block const& block, std::uint8_t* context, std::span<Temp> temps, Runtime& runtime)
        : block_(block), context_(context), temps_(temps), runtime_(runtime), out_(std::make_unique<InterpBlock>()) {}

    std::unique_ptr<InterpBlock> run() {
        out_->start = block_.start;
        out_->guest_insns = block_.guest_insns;
        find_uses();
        plan_gets();
        plan_puts();
        for (std::uint32_t i = 0; i < block_.insts.size(); ++i) emit(i);
        emit_terminal();
        return std::move(out_);
    }

private:
    struct Value {
        std::uint32_t uses = 0, last_use = 0;
        ValueId root = none;             // the value this one is the same bits as (zext of i32), or itself
        bool alias_slot = false;         // a get used in place
        std::uint32_t put_at = no_index; // index of the put whose slot this value is written to directly
        void* place = nullptr;
    };

    Inst const& inst(std::uint32_t i) const { return block_.insts[i]; }
    std::uint32_t count() const { return std::uint32_t(block_.insts.size()); }
    bool is_slot_op(Inst const& n) const { return n.op == Opcode::get || n.op == Opcode::put; }
    static bool overlap(Inst const& x, Inst const& y) {
        return x.imm < y.imm + std::int64_t(size_of(y.type)) && y.imm < x.imm + std::int64_t(size_of(x.type));
    }
    bool call_writes(Inst const& n) const {
        return n.op == Opcode::call && runtime_.guest.helper(std::uint16_t(n.imm)).writes;
    }
    bool may_fault(Inst const& n) const { return n.op == Opcode::call || info(n.op).memory || info(n.op).may_fault; }

    // Whether i32 results of this value are sure to be zero-extended in their place.
    bool zero_extended(ValueId v) const {
        Inst const& n = inst(v);
        return n.type == Type::i32 && n.op != Opcode::get && n.op != Opcode::constant && n.op != Opcode::vec_to_gpr &&
               n.op != Opcode::high && n.op != Opcode::put;
    }
    bool same_bits(Inst const& n) const {
        return n.op == Opcode::zext && n.type == Type::i64 && Type(n.aux) == Type::i32 && zero_extended(n.a);
    }

    void use(ValueId v, std::uint32_t at_index) {
        if (v == none) return;
        ValueId root = values_[v].root;
        values_[root].uses++;
        values_[root].last_use = std::max(values_[root].last_use, at_index);
    }

    void find_uses() {
        values_.resize(count());
        for (std::uint32_t i = 0; i < count(); ++i) {
            Inst const& n = inst(i);
            values_[i].root = same_bits(n) ? values_[n.a].root : ValueId(i);
            if (values_[i].root != i) continue;
            use(n.a, i), use(n.b, i), use(n.c, i);
        }
        if (auto* t = std::get_if<BranchNonZero>(&block_.terminal)) use(t->value, count());
        if (auto* t = std::get_if<Indirect>(&block_.terminal)) use(t->target, count());
    }

    void plan_gets() {
        for (std::uint32_t i = 0; i < count(); ++i) {
            Inst const& n = inst(i);
            if (n.op != Opcode::get) continue;
            bool stable = true;
            for (std::uint32_t k = i + 1; k < values_[i].last_use && stable; ++k)
                stable = !(inst(k).op == Opcode::put && overlap(inst(k), n)) && !call_writes(inst(k));
            values_[i].alias_slot = stable;
        }
    }

    bool put_fits(Inst const& put, ValueId root) const {
        Type t = inst(root).type;
        if (t == put.type) return t != Type::i32; // i32 results are written as 64 bits
        return t == Type::i32 && put.type == Type::i64 && zero_extended(root);
    }

    void plan_puts() {
        for (std::uint32_t j = 0; j < count(); ++j) {
            Inst const& put = inst(j);
            if (put.op != Opcode::put) continue;
            ValueId root = values_[put.a].root;
            Value& v = values_[root];
            Inst const& def = inst(root);
            if (def.op == Opcode::get || def.op == Opcode::constant || def.op == Opcode::high ||
                writes_two_words(def.op) || v.put_at != no_index || !put_fits(put, root))
                continue;
            // A narrow value read wider through zext/sext/lea still reads its own width only, so a slot serves as well.
            bool ok = true;
            for (std::uint32_t k = root + 1; k < j && ok; ++k) {
                Inst const& n = inst(k);
                ok = !may_fault(n) && !(is_slot_op(n) && overlap(n, put)) &&
                     !(values_[k].put_at != no_index && overlap(inst(values_[k].put_at), put));
            }
            // Gets used in place must not be read after the definition.
            for (std::uint32_t g = 0; g < root && ok; ++g)
                ok = !(inst(g).op == Opcode::get && values_[g].alias_slot && overlap(inst(g), put) &&
                       values_[g].last_use > root);
            for (std::uint32_t k = j + 1; k < v.last_use && ok; ++k)
                ok = !(inst(k).op == Opcode::put && overlap(inst(k), put)) && !call_writes(inst(k));
            // Definitions written early to an overlapping slot between this put and the last use.
            for (std::uint32_t k = root + 1; k < std::min(v.last_use, count()) && ok; ++k)
                ok = !(values_[k].put_at != no_index && overlap(inst(values_[k].put_at), put));
            if (ok) v.put_at = j;
        }
    }

    void* take_temp() {
        if (!free_.empty()) {
            unsigned t = free_.back();
            free_.pop_back();
            return &temps_[t];
        }
        VMM_ASSERT(next_temp_ < temps_.size());
        return &temps_[next_temp_++];
    }
    void release(ValueId v, std::uint32_t at_index) {
        if (v == none) return;
        Value& value = values_[values_[v].root];
        if (value.last_use != at_index || !value.place) return;
        auto* p = static_cast<Temp*>(value.place);
        if (p >= temps_.data() && p < temps_.data() + temps_.size() && !value.alias_slot && value.put_at == no_index) {
            free_.push_back(unsigned(p - temps_.data()));
            value.place = nullptr;
        }
    }

    void const* operand(ValueId v) { return v == none ? nullptr : values_[values_[v].root].place; }
    void* slot(Inst const& n) const { return context_ + n.imm; }

    void emit(std::uint32_t i) {
        Inst const& n = inst(i);
        Value& v = values_[i];
        if (v.root != i) return;
        switch (n.op) {
        case Opcode::insn_start:
            out_->instructions.push_back({std::uint32_t(out_->code.size()), std::int32_t(n.imm)});
            return;
        case Opcode::constant:
            out_->constants.push_back({std::uint64_t(n.imm), 0, 0, 0});
            v.place = &out_->constants.back();
            return;
        case Opcode::get:
            if (v.alias_slot) {
                v.place = slot(n);
                return;
            }
            break;
        case Opcode::put:
            if (values_[values_[n.a].root].put_at == i) return;
            break;
        default: break;
        }
        OpInfo const& op = info(n.op);
        bool has_effect = op.effect || op.memory || op.may_fault || n.sets_flags || n.op == Opcode::put;
        if (v.uses == 0 && !has_effect && !is_floating(n)) return;

        Code code{.run = nullptr, .dst = nullptr, .a = operand(n.a), .b = operand(n.b), .c = operand(n.c), .imm = 0};
        // Operands die before the result is placed, so that a result may reuse a temporary: handlers read first. Not so
        // for two-word results and vectors, whose functions may write lane by lane.
        bool reuse = n.type <= Type::i64 && !writes_two_words(n.op);
        if (reuse) release(n.a, i), release(n.b, i), release(n.c, i);
        if (n.op == Opcode::get) code.a = slot(n);
        if (n.op == Opcode::put) {
            code.dst = slot(n);
        } else if (op.has_result && (v.uses != 0 || !op.memory || n.op == Opcode::load)) {
            v.place = v.put_at != no_index ? context_ + inst(v.put_at).imm : take_temp();
            code.dst = v.place;
        }
        select(n, v, code);
        VMM_ASSERT(code.run);
        out_->code.push_back(code);
        if (!reuse) release(n.a, i), release(n.b, i), release(n.c, i);
        if (op.has_result && v.uses == 0) v.last_use = i, release(ValueId(i), i);
    }

    // Floating-point vector operations set status flags even when their result is dead.
    static bool is_floating(Inst const& n) {
        return n.op == Opcode::vec || n.op == Opcode::vec_to_gpr || n.op == Opcode::gpr_to_vec;
    }

    bool wide(Inst const& n) const {
        auto is_wide = [&](ValueId v) { return v != none && inst(v).type == Type::v256; };
        return n.type == Type::v256 || is_wide(n.a) || is_wide(n.b) || is_wide(n.c);
    }

    void select(Inst const& n, Value const& v, Code& code) {
        switch (n.op) {
        case Opcode::call: {
            GuestInfo::Helper helper = runtime_.guest.helper(std::uint16_t(n.imm));
            code.imm = reinterpret_cast<std::uint64_t>(helper.function);
            unsigned args = n.a == none ? 0 : n.b == none ? 1 : n.c == none ? 2 : 3;
            static constexpr Handler plain[] = {call_helper<false, 0>, call_helper<false, 1>, call_helper<false, 2>,
                                                call_helper<false, 3>};
            static constexpr Handler faulting[] = {call_helper<true, 0>, call_helper<true, 1>, call_helper<true, 2>,
                                                   call_helper<true, 3>};
            code.run = helper.faults || helper.memory || helper.exits ? faulting[args] : plain[args];
            if (v.uses == 0) code.dst = nullptr;
            return;
        }
        case Opcode::vec:
        case Opcode::vec_to_gpr:
        case Opcode::gpr_to_vec:
            code.run = vector_handler(n, wide(n));
            code.imm = vector_immediate(n, wide(n));
            return;
        case Opcode::sub:
        case Opcode::and_:
            if (v.uses == 0 && n.sets_flags) {
                code.run = compare_handler(n);
                return;
            }
            break;
        case Opcode::lea:
            if (n.a == none) { // index only
                code.a = n.b == none ? nullptr : code.b;
                VMM_ASSERT(n.b != none);
                out_->constants.push_back({0, 0, 0, 0});
                code.b = code.a;
                code.a = &out_->constants.back();
            }
            code.c = reinterpret_cast<void const*>(std::uintptr_t(n.aux));
            break;
        default: break;
        }
        if (info(n.op).memory) {
            code.run = memory_handler(n);
            code.imm = memory_immediate(n);
        } else {
            code.run = integer_handler(n);
            code.imm = handler_immediate(n);
        }
    }

    void emit_terminal() {
        Code code{.run = end_dispatch, .dst = &runtime_, .a = nullptr, .b = nullptr, .c = nullptr, .imm = 0};
        if (auto* j = std::get_if<Jump>(&block_.terminal)) {
            code.run = end_jump;
            out_->taken.offset = j->target;
            code.a = &out_->taken;
        } else if (auto* b = std::get_if<Branch>(&block_.terminal)) {
            code.run = end_branch;
            code.imm = std::uint64_t(b->cc);
            set_sites(code, b->taken, b->not_taken);
        } else if (auto* z = std::get_if<BranchNonZero>(&block_.terminal)) {
            code.run = z->type == Type::i8    ? end_branch_nonzero<std::uint8_t>
                       : z->type == Type::i16 ? end_branch_nonzero<std::uint16_t>
                       : z->type == Type::i32 ? end_branch_nonzero<std::uint32_t>
                                              : end_branch_nonzero<std::uint64_t>;
            code.c = operand(z->value);
            set_sites(code, z->taken, z->not_taken);
        } else if (auto* x = std::get_if<Indirect>(&block_.terminal)) {
            code.run = end_indirect;
            code.a = operand(x->target);
        }
        out_->code.push_back(code);
    }
    void set_sites(Code& code, std::int32_t taken, std::int32_t not_taken) {
        out_->taken.offset = taken, out_->not_taken.offset = not_taken;
        code.a = &out_->taken, code.b = &out_->not_taken;
    }

    Block const& block_;
    std::uint8_t* context_;
    std::span<Temp> temps_;
    Runtime& runtime_;
    std::unique_ptr<InterpBlock> out_;
    std::vector<Value> values_;
    std::vector<unsigned> free_;
    unsigned next_temp_ = 0;
};

} // namespace

std::unique_ptr<InterpBlock> compile(Block const& block, std::uint8_t* context, std::span<Temp> temps,
                                     Runtime& runtime) {
    return Compiler(block, context, temps, runtime).run();
}

} // namespace vmm::tcg::interp
