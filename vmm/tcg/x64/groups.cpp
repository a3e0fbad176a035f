#include "vmm/tcg/x64/groups.h"

#include "vmm/tcg/ir/op_info.h"

#include <algorithm>
#include <optional>

namespace vmm::tcg::x64 {

using namespace ir;

namespace {

bool takes_part(Inst const& n) {
    switch (n.op) {
    case Opcode::load:
    case Opcode::store: return !(n.memory & mem_lock);
    default: return false;
    }
}
bool writes(Inst const& n) { return n.op == Opcode::store || (n.memory & mem_for_write); }

// What is known of an i64: the same unknown as all others of this origin, plus a constant.
struct Symbol {
    std::uint32_t origin;
    std::int64_t offset;
};

class Finder {
public:
    explicit Finder(Block const& block) : block_(block), symbols_(block.insts.size()) {}

    AccessGroups run() {
        AccessGroups out;
        out.member.resize(count());
        for (std::uint32_t i = 0; i < count(); ++i) symbols_[i] = symbol_of(i);
        for (std::uint32_t i = 0; i < count(); ++i) {
            if (!takes_part(inst(i))) continue;
            AccessGroup group = grown(i, out.member);
            if (group.last == i) continue;
            out.groups.push_back(group);
            i = group.last;
        }
        return out;
    }

private:
    std::uint32_t count() const { return std::uint32_t(block_.insts.size()); }
    Inst const& inst(std::uint32_t i) const { return block_.insts[i]; }

    std::optional<std::int64_t> constant(ValueId v) const {
        if (v == none || inst(v).op != Opcode::constant) return std::nullopt;
        return inst(v).imm;
    }
    static Symbol moved(Symbol s, std::uint64_t by) { return {s.origin, std::int64_t(std::uint64_t(s.offset) + by)}; }

    Symbol symbol_of(std::uint32_t i) {
        Inst const& n = inst(i);
        Symbol const fresh{i, 0};
        if (n.op == Opcode::put) note_put(n);
        if (n.op == Opcode::call) slots_.clear();
        if (n.type != Type::i64) return fresh;
        switch (n.op) {
        case Opcode::get: return content(n, fresh);
        case Opcode::lea: return lea(n, fresh);
        case Opcode::add:
            if (auto c = constant(n.b)) return moved(symbols_[n.a], std::uint64_t(*c));
            return fresh;
        case Opcode::sub:
            if (auto c = constant(n.b)) return moved(symbols_[n.a], std::uint64_t(0) - std::uint64_t(*c));
            return fresh;
        default: return fresh;
        }
    }

    // Slots of the context whose content has a symbol.
    struct Slot {
        std::int64_t at;
        Symbol symbol;
    };
    void note_put(Inst const& n) {
        std::erase_if(slots_,
                      [&](Slot const& s) { return s.at < n.imm + std::int64_t(size_of(n.type)) && n.imm < s.at + 8; });
        if (n.type == Type::i64) slots_.push_back({n.imm, symbols_[n.a]});
    }
    Symbol content(Inst const& n, Symbol fresh) {
        for (Slot const& s : slots_)
            if (s.at == n.imm) return s.symbol;
        slots_.push_back({n.imm, fresh});
        return fresh;
    }

    // Sums of two unknowns are told apart by their parts.
    struct Sum {
        Symbol a, b;
        unsigned shift;
        std::uint32_t origin;
    };
    Symbol lea(Inst const& n, Symbol fresh) {
        if (n.a == none) return fresh;
        Symbol a = symbols_[n.a];
        if (n.b == none) return moved(a, std::uint64_t(n.imm));
        Symbol b = symbols_[n.b];
        std::uint64_t offset = std::uint64_t(n.imm) + std::uint64_t(a.offset);
        for (Sum const& s : sums_)
            if (s.a.origin == a.origin && s.b.origin == b.origin && s.b.offset == b.offset && s.shift == n.aux)
                return {s.origin, std::int64_t(offset)};
        sums_.push_back({a, b, n.aux, fresh.origin});
        return {fresh.origin, std::int64_t(offset)};
    }

    AccessGroup grown(std::uint32_t first, std::vector<std::uint8_t>& member) const {
        Symbol const start = symbols_[inst(first).a];
        AccessGroup group{first, first, 0, std::int32_t(size_of(inst(first).type)), writes(inst(first))};
        std::uint32_t const end = std::min(count(), first + max_group_length);
        for (std::uint32_t i = first + 1; i < end && inst(i).op != Opcode::call; ++i) {
            Inst const& n = inst(i);
            if (!takes_part(n) || symbols_[n.a].origin != start.origin) continue;
            std::int64_t const at = std::int64_t(std::uint64_t(symbols_[n.a].offset) - std::uint64_t(start.offset));
            if (at < -max_group_span || at > max_group_span) continue;
            std::int32_t const low = std::min(group.low, std::int32_t(at)),
                               high = std::max(group.high, std::int32_t(at) + std::int32_t(size_of(n.type)));
            if (high - low > max_group_span) continue;
            group.low = low, group.high = high, group.last = i;
            group.write |= writes(n);
            member[first] = member[i] = 1;
        }
        return group;
    }

    Block const& block_;
    std::vector<Symbol> symbols_;
    std::vector<Slot> slots_;
    std::vector<Sum> sums_;
};

} // namespace

AccessGroups find_groups(Block const& block) { return Finder(block).run(); }

} // namespace vmm::tcg::x64
