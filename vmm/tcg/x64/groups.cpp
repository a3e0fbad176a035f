#include "vmm/tcg/x64/groups.h"

#include <algorithm>

namespace vmm::tcg::x64 {

using namespace ir;

namespace {

bool takes_part(Inst const& n) { return (n.op == Opcode::load || n.op == Opcode::store) && !(n.memory & mem_lock); }
bool writes(Inst const& n) { return n.op == Opcode::store || (n.memory & mem_for_write); }

} // namespace

AccessGroups const& GroupFinder::run(Block const& block) {
    block_ = &block;
    found_.groups.clear();
    found_.member.assign(count(), 0);
    if (!worth_a_look()) return found_;
    symbols_.resize(count());
    slots_.clear(), sums_.clear();
    for (std::uint32_t i = 0; i < count(); ++i) symbols_[i] = symbol_of(i);
    for (std::uint32_t i = 0; i < count(); ++i) {
        if (!takes_part(inst(i))) continue;
        AccessGroup group = grown(i);
        if (group.last == i) continue;
        found_.groups.push_back(group);
        i = group.last;
    }
    return found_;
}

bool GroupFinder::worth_a_look() const {
    unsigned accesses = 0;
    for (std::uint32_t i = 0; i < count() && accesses < 2; ++i) accesses += takes_part(inst(i));
    return accesses == 2;
}

GroupFinder::Symbol GroupFinder::symbol_of(std::uint32_t i) {
    Inst const& n = inst(i);
    Symbol const fresh{i, 0};
    if (n.op == Opcode::put) note_put(n);
    if (n.op == Opcode::call) slots_.clear();
    if (n.type != Type::i64) return fresh;
    auto constant = [&](ValueId v) { return v != none && inst(v).op == Opcode::constant; };
    switch (n.op) {
    case Opcode::get: return content(n, fresh);
    case Opcode::pc: return {pc_origin, n.imm};
    case Opcode::lea: return lea(n, fresh);
    case Opcode::add: return constant(n.b) ? moved(symbols_[n.a], std::uint64_t(inst(n.b).imm)) : fresh;
    case Opcode::sub:
        return constant(n.b) ? moved(symbols_[n.a], std::uint64_t(0) - std::uint64_t(inst(n.b).imm)) : fresh;
    default: return fresh;
    }
}

void GroupFinder::note_put(Inst const& n) {
    std::erase_if(slots_,
                  [&](Slot const& s) { return s.at < n.imm + std::int64_t(size_of(n.type)) && n.imm < s.at + 8; });
    if (n.type == Type::i64) slots_.push_back({n.imm, symbols_[n.a]});
}

GroupFinder::Symbol GroupFinder::content(Inst const& n, Symbol fresh) {
    for (Slot const& s : slots_)
        if (s.at == n.imm) return s.symbol;
    slots_.push_back({n.imm, fresh});
    return fresh;
}

GroupFinder::Symbol GroupFinder::lea(Inst const& n, Symbol fresh) {
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

AccessGroup GroupFinder::grown(std::uint32_t first) {
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
        found_.member[first] = found_.member[i] = 1;
    }
    return group;
}

} // namespace vmm::tcg::x64
