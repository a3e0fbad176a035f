#include "vmm/tcg/x64/plan.h"

#include "vmm/tcg/ir/op_info.h"
#include "vmm/tcg/ir/passes.h"

#include <algorithm>

namespace vmm::tcg::x64 {

using namespace ir;

bool may_fault(Inst const& inst) {
    OpTraits const op = traits(inst.op);
    return op.memory || op.may_fault;
}

int constant_count(Block const& block, Inst const& inst) {
    ValueId count = inst.op == Opcode::shld || inst.op == Opcode::shrd ? inst.c : inst.b;
    if (count == none || block.insts[count].op != Opcode::constant) return -1;
    return int(block.insts[count].imm & (inst.type == Type::i64 ? 63 : 31));
}

bool keeps_some_flags(Block const& block, Inst const& inst) {
    switch (inst.op) {
    case Opcode::shl:
    case Opcode::shr:
    case Opcode::sar:
    case Opcode::shld:
    case Opcode::shrd: return constant_count(block, inst) <= 0;
    case Opcode::inc:
    case Opcode::dec:
    case Opcode::rol:
    case Opcode::ror:
    case Opcode::rcl:
    case Opcode::rcr:
    case Opcode::bt:
    case Opcode::bts:
    case Opcode::btr:
    case Opcode::btc:
    case Opcode::rmw_inc:
    case Opcode::rmw_dec:
    case Opcode::rmw_bts:
    case Opcode::rmw_btr:
    case Opcode::rmw_btc: return true;
    default: return false;
    }
}

namespace {

class Planner {
public:
    Planner(Block const& block, Pins const& pins, GuestInfo const& guest, Plan& plan)
        : block_(block), insts_(block.insts.data()), count_(std::uint32_t(block.insts.size())), pins_(pins),
          guest_(guest), plan_(plan) {
        plan_.values.assign(count_, {});
        values_ = plan_.values.data();
        residents_.fill(no_index);
        content_.fill(no_index);
    }

    void run() {
        plan_.leas.clear(), plan_.gets.clear(), plan_.changes.clear(), plan_.accesses.clear(), plan_.calls.clear();
        plan_.vectors = plan_.wide = false;
        find_uses();
        fold_addresses();
        place_gets();
        place_puts();
        look_back();
    }

private:
    Inst const& inst(std::uint32_t i) const { return insts_[i]; }
    std::uint32_t count() const { return count_; }
    ValuePlan& value(ValueId v) { return values_[v]; }
    bool call_writes(Inst const& n) const { return n.op == Opcode::call && guest_.helper(std::uint16_t(n.imm)).writes; }
    static bool is_slot_op(Inst const& n) { return n.op == Opcode::get || n.op == Opcode::put; }
    static bool overlap(Inst const& x, Inst const& y) {
        return x.imm < y.imm + std::int64_t(size_of(y.type)) && y.imm < x.imm + std::int64_t(size_of(x.type));
    }

    // Whether the register that holds this i32 has zeros above.
    bool zero_extended(ValueId v) const {
        Inst const& n = inst(v);
        return n.type == Type::i32 && n.op != Opcode::get && n.op != Opcode::constant && n.op != Opcode::trunc &&
               n.op != Opcode::high && n.op != Opcode::vec_to_gpr && n.op != Opcode::put && n.op != Opcode::call;
    }
    // Of a conversion.
    ValueId root_of(std::uint32_t i) {
        Inst const& n = inst(i);
        if (n.op == Opcode::trunc) return value(n.a).root;
        if (n.op == Opcode::zext && n.type == Type::i64 && Type(n.aux) == Type::i32 && zero_extended(n.a))
            return value(n.a).root;
        if (n.op == Opcode::zext && n.type >= Type::i32 && inst(n.a).op == Opcode::load && inst(n.a).type < Type::i32) {
            value(n.a).wide = true;
            return n.a;
        }
        return ValueId(i);
    }
    void note_get(std::uint32_t i) {
        Inst const& n = inst(i);
        ValuePlan& v = value(ValueId(i));
        v.root = n.type >= Type::v128 ? forwarded_vector(i) : forwarded(i);
        if (n.type <= Type::i64) v.pin = std::int8_t(pins_.find(n.imm, size_of(n.type)));
        v.changes = std::uint16_t(plan_.changes.size());
        if (v.root == i) plan_.gets.push_back(std::uint16_t(i));
    }
    void note_put(std::uint32_t i) {
        Inst const& n = inst(i);
        ValuePlan& v = value(ValueId(i));
        plan_.changes.push_back(std::uint16_t(i));
        v.changes = std::uint16_t(plan_.changes.size());
        if (n.type <= Type::i64) {
            v.pin = std::int8_t(pins_.find(n.imm, size_of(n.type)));
            int const r = pins_.unpinned(n.imm, size_of(n.type));
            if (r >= 0) content_[unsigned(r)] = i;
        }
        use(n.a, i, n.type != Type::i64 || v.pin < 0);
    }
    // A general register read from the context whose content is a value already known.
    ValueId forwarded(std::uint32_t i) {
        Inst const& n = inst(i);
        int const r = pins_.unpinned(n.imm, size_of(n.type));
        if (r < 0) return ValueId(i);
        std::uint32_t& last = content_[unsigned(r)];
        if (last != no_index && inst(last).imm == n.imm && n.type <= inst(last).type)
            return value(inst(last).op == Opcode::put ? inst(last).a : ValueId(last)).root;
        // What a write to a part of the register has hidden stays so.
        if (last == no_index || (inst(last).op == Opcode::get && inst(last).type < n.type)) last = i;
        return ValueId(i);
    }
    // A vector read from a slot whose content is a value already known.
    ValueId forwarded_vector(std::uint32_t i) {
        Inst const& n = inst(i);
        for (std::uint32_t k = i; k-- > 0;) {
            Inst const& m = inst(k);
            if (call_writes(m)) break;
            if (!is_slot_op(m) || !overlap(m, n)) continue;
            if (m.imm != n.imm || m.type != n.type) {
                if (m.op == Opcode::put) break;
                continue;
            }
            return value(m.op == Opcode::put ? m.a : ValueId(k)).root;
        }
        return ValueId(i);
    }

    void use(ValueId v, std::uint32_t at, bool otherwise = true) {
        if (v == none) return;
        ValuePlan& root = value(value(v).root);
        root.uses++;
        root.used_otherwise |= otherwise;
        root.last_use = std::max(root.last_use, at);
    }

    void find_uses() {
        for (std::uint32_t i = 0; i < count(); ++i) {
            Inst const& n = inst(i);
            value(ValueId(i)).root = ValueId(i);
            plan_.vectors |= n.type >= Type::v128;
            plan_.wide |= n.type == Type::v256;
            switch (n.op) {
            case Opcode::insn_start: break;
            case Opcode::get: note_get(i); break;
            case Opcode::put: note_put(i); break;
            case Opcode::trunc:
            case Opcode::zext:
                if ((value(ValueId(i)).root = root_of(i)) == i) use(n.a, i);
                break;
            case Opcode::call:
                plan_.calls.push_back(std::uint16_t(i));
                if (call_writes(n)) content_.fill(no_index), plan_.changes.push_back(std::uint16_t(i));
                use(n.a, i), use(n.b, i), use(n.c, i);
                break;
            case Opcode::load:
            case Opcode::store:
                if (!(n.memory & mem_lock)) plan_.accesses.push_back(std::uint16_t(i));
                use(n.a, i, false), use(n.b, i);
                break;
            case Opcode::lea: plan_.leas.push_back(std::uint16_t(i)); [[fallthrough]];
            default: use(n.a, i, !traits(n.op).memory), use(n.b, i), use(n.c, i);
            }
        }
        if (auto* t = std::get_if<BranchNonZero>(&block_.terminal)) use(t->value, count());
        if (auto* t = std::get_if<Indirect>(&block_.terminal)) use(t->target, count());
    }

    // Nothing writes the slot that `slot`, a get or put, names between it and `until`.
    bool stable(std::uint32_t slot, std::uint32_t until) {
        for (std::size_t c = value(ValueId(slot)).changes; c < plan_.changes.size() && plan_.changes[c] < until; ++c) {
            Inst const& n = inst(plan_.changes[c]);
            if (n.op == Opcode::call || overlap(n, inst(slot))) return false;
        }
        return true;
    }

    // Addresses base + index * scale + displacement go into memory operands (and into the put of a stack pointer).
    void fold_addresses() {
        for (std::uint32_t i : plan_.leas) {
            Inst const& n = inst(i);
            ValuePlan& v = value(ValueId(i));
            if (n.type != Type::i64 || v.used_otherwise || v.uses == 0) continue;
            if (n.imm != std::int32_t(n.imm)) continue;
            auto fits = [&](ValueId in) {
                if (in == none) return true;
                ValueId root = value(in).root;
                return inst(root).op != Opcode::get || stable(root, v.last_use);
            };
            if (!fits(n.a) || !fits(n.b)) continue;
            v.folded = true;
            for (ValueId in : {n.a, n.b})
                if (in != none) {
                    ValuePlan& root = value(value(in).root);
                    root.last_use = std::max(root.last_use, v.last_use);
                }
        }
    }

    void place_gets() {
        for (std::uint32_t i : plan_.changes) {
            Inst const& n = inst(i);
            if (n.op == Opcode::put && n.type == Type::i64 && pins_.unpinned(n.imm, 8) >= 0)
                value(ValueId(i)).in_place = stable(i, value(value(n.a).root).last_use);
        }
        for (std::uint32_t i : plan_.gets) {
            ValuePlan& v = value(ValueId(i));
            if (inst(i).type > Type::i64) continue;
            v.in_place = stable(i, v.last_use);
            if (v.in_place && v.pin >= 0) add_resident(v.pin, i);
        }
    }

    bool fits_register(Inst const& put, ValueId root) {
        Type t = inst(root).type;
        if (put.imm != std::int64_t(pins_.pin[unsigned(value(ValueId(&put - block_.insts.data())).pin)].offset))
            return false; // AH and the like
        if (value(root).wide) return put.type == Type::i64;
        if (put.type == Type::i64) return t == Type::i64 || (t == Type::i32 && zero_extended(root) && put.a != root);
        if (t != put.type || t == Type::i32) return false;
        // Bytes and words: only what the host does in place.
        Inst const& def = inst(root);
        if (def.op == Opcode::setcc || def.op == Opcode::load) return true;
        if (def.op < Opcode::add || def.op > Opcode::not_ || def.op == Opcode::andn || def.a == none) return false;
        ValueId a = value(def.a).root;
        return inst(a).op == Opcode::get && inst(a).imm == put.imm && inst(a).type == put.type && value(a).in_place;
    }
    static bool may_target_register(Inst const& def) {
        switch (def.op) {
        case Opcode::get:
        case Opcode::constant:
        case Opcode::high:
        case Opcode::umul2:
        case Opcode::smul2:
        case Opcode::udiv2:
        case Opcode::sdiv2:
        case Opcode::call: return false;
        default: return true;
        }
    }

    void place_puts() {
        for (std::uint32_t j : plan_.changes) {
            Inst const& put = inst(j);
            std::int8_t pin = value(ValueId(j)).pin;
            if (put.op != Opcode::put || pin < 0) continue;
            ValueId root = value(put.a).root;
            ValuePlan& v = value(root);
            if (v.put_at != no_index || v.folded || !may_target_register(inst(root)) || !fits_register(put, root))
                continue;
            bool ok = true;
            for (std::uint32_t k = root + 1; k < j && ok; ++k)
                ok = !may_fault(inst(k)) && !(is_slot_op(inst(k)) && value(ValueId(k)).pin == pin);
            for (std::uint32_t g = residents_[unsigned(pin)]; g != no_index && ok; g = values_[g].next_resident)
                ok = g >= root || value(ValueId(g)).last_use <= root;
            if (ok) ok = stable_after(j, v.last_use, pin);
            if (!ok) continue;
            v.put_at = j;
            add_resident(pin, root);
        }
    }
    void add_resident(std::int8_t pin, std::uint32_t i) {
        values_[i].next_resident = residents_[unsigned(pin)];
        residents_[unsigned(pin)] = i;
    }
    bool stable_after(std::uint32_t j, std::uint32_t until, std::int8_t pin) {
        for (std::size_t c = value(ValueId(j)).changes; c < plan_.changes.size() && plan_.changes[c] < until; ++c) {
            std::uint32_t const k = plan_.changes[c];
            if (inst(k).op == Opcode::call || value(ValueId(k)).pin == pin) return false;
        }
        return true;
    }

    // Which flags are live; and puts to general registers in the context before others to the same, with nothing
    // between that looks.
    void look_back() {
        bool live = true;              // leaving the block
        std::uint32_t overwritten = 0; // bit per register
        for (std::uint32_t i = count(); i-- > 0;) {
            Inst const& n = inst(i);
            value(ValueId(i)).flags_live_after = live;
            OpTraits const op = traits(n.op);
            if (n.op == Opcode::put_flags)
                live = false;
            else if (n.sets_flags && live)
                live = keeps_some_flags(block_, n);
            live |= op.always_reads_flags;
            if (n.op == Opcode::call) {
                live = live || !guest_.helper(std::uint16_t(n.imm)).pure;
                overwritten = 0;
            } else if (op.memory || op.may_fault) {
                live = true;
                overwritten = 0;
            } else if (is_slot_op(n)) {
                note_overwritten(i, overwritten);
            }
            value(ValueId(i)).flags_live_before = live;
            note_unneeded(i);
        }
        plan_.flags_dead_at_entry = !live;
    }
    void note_unneeded(std::uint32_t i) {
        Inst const& n = inst(i);
        ValuePlan& v = value(ValueId(i));
        OpTraits const op = traits(n.op);
        bool const only_value = op.has_result && !op.effect && !op.memory && !op.may_fault && !op.vector;
        v.unneeded = v.root != i || v.folded || (only_value && v.uses == 0 && !(n.sets_flags && v.flags_live_after));
    }
    void note_overwritten(std::uint32_t i, std::uint32_t& overwritten) {
        Inst const& n = inst(i);
        ValuePlan& v = value(ValueId(i));
        if (n.type > Type::i64 || v.root != i) return;
        int const r = pins_.unpinned(n.imm, size_of(n.type));
        if (r < 0) return;
        if (n.op == Opcode::get)
            overwritten &= ~(1u << r);
        else if (overwritten >> r & 1)
            v.dead = true;
        else if (n.type == Type::i64)
            overwritten |= 1u << r;
    }

    // By general register: the get or put that says what the context has there.
    std::array<std::uint32_t, max_unpinned> content_;
    Block const& block_;
    Inst const* insts_;
    std::uint32_t count_;
    ValuePlan* values_ = nullptr;
    Pins const& pins_;
    GuestInfo const& guest_;
    Plan& plan_;
    // The first of the values that live in each pinned register of the guest: gets in place and direct puts.
    std::array<std::uint32_t, max_pins> residents_;
};

} // namespace

void make_plan(Block const& block, Pins const& pins, GuestInfo const& guest, Plan& out) {
    Planner(block, pins, guest, out).run();
}

} // namespace vmm::tcg::x64
