#include "vmm/tcg/x64/groups.h"

#include <algorithm>

namespace vmm::tcg::x64 {

using namespace ir;

namespace {

bool writes(Inst const& n) { return n.op == Opcode::store || (n.memory & mem_for_write); }

} // namespace

AccessGroups const& GroupFinder::run(Block const& block, Plan const& plan) {
    block_ = &block, plan_ = &plan;
    found_.groups.clear();
    found_.member.assign(count(), 0);
    auto const& accesses = plan.accesses;
    if (accesses.size() < 2) return found_;
    symbols_.resize(count());
    ++knowledge_, sums_.clear();
    for (std::uint32_t i = 0; i <= accesses.back(); ++i) symbols_[i] = symbol_of(i);
    auto call = plan.calls.begin();
    for (std::size_t k = 0; k + 1 < accesses.size();) {
        while (call != plan.calls.end() && *call < accesses[k]) ++call;
        AccessGroup const group = grown(k, call == plan.calls.end() ? count() : *call);
        if (group.last != group.first) found_.groups.push_back(group);
        while (k < accesses.size() && accesses[k] <= group.last) ++k;
    }
    return found_;
}

GroupFinder::Symbol GroupFinder::symbol_of(std::uint32_t i) {
    Inst const& n = inst(i);
    Symbol const fresh{i, 0};
    if (n.op == Opcode::put) note_put(n);
    if (n.op == Opcode::call) ++knowledge_;
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
    if (Slot* whole = n.type == Type::i64 ? slot(n.imm) : nullptr) {
        *whole = {knowledge_, symbols_[n.a]};
        return;
    }
    for (std::int64_t at = n.imm & ~std::int64_t(7); at < n.imm + std::int64_t(size_of(n.type)); at += 8)
        if (Slot* s = slot(at)) s->known = 0;
}

GroupFinder::Symbol GroupFinder::content(Inst const& n, Symbol fresh) {
    Slot* s = slot(n.imm);
    if (!s) return fresh;
    if (s->known != knowledge_) *s = {knowledge_, fresh};
    return s->symbol;
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

AccessGroup GroupFinder::grown(std::size_t number, std::uint32_t end) {
    auto const& accesses = plan_->accesses;
    std::uint32_t const first = accesses[number];
    Symbol const start = symbols_[inst(first).a];
    AccessGroup group{first, first, 0, std::int32_t(size_of(inst(first).type)), writes(inst(first))};
    end = std::min(end, first + max_group_length);
    for (std::size_t k = number + 1; k < accesses.size() && accesses[k] < end; ++k) {
        std::uint32_t const i = accesses[k];
        Inst const& n = inst(i);
        if (symbols_[n.a].origin != start.origin) continue;
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
