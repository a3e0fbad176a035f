// Access groups: runs of guest memory accesses whose addresses differ by constants, so that one TLB check serves all.
#pragma once
#include "vmm/tcg/ir/ir.h"
#include "vmm/tcg/x64/plan.h"

#include <array>
#include <cstdint>
#include <vector>

namespace vmm::tcg::x64 {

struct AccessGroup {
    std::uint32_t first, last; // instructions; others, and accesses to elsewhere, may lie between
    // Bytes touched, relative to the address of the first access: [low, high). At most max_group_span.
    std::int32_t low, high;
    bool write; // some access needs write permission
};
// A span that covers no more than two pages, which are in different TLB slots: the check of its last byte against the
// slot of its first then fails when it crosses.
inline constexpr std::int32_t max_group_span = 4096;
// IR instructions from first to last: they are emitted twice.
inline constexpr std::uint32_t max_group_length = 80;

// Groups do not overlap and hold two accesses at least; `member[i]`: instruction i belongs to the group it lies in.
struct AccessGroups {
    std::vector<AccessGroup> groups; // in order
    std::vector<std::uint8_t> member;
};

// Finds the groups of one block after another, in memory it keeps.
class GroupFinder {
public:
    // Good until the next call.
    AccessGroups const& run(ir::Block const& block, Plan const& plan);

private:
    // What is known of an i64: the same unknown as all others of this origin, plus a constant.
    struct Symbol {
        std::uint32_t origin; // an instruction, or
        std::int64_t offset;
    };
    static constexpr std::uint32_t pc_origin = no_index; // ... where the block's page begins
    // Eight bytes of the context, whose content has a symbol when `known` is the present knowledge_.
    struct Slot {
        std::uint64_t known = 0;
        Symbol symbol{};
    };
    // Sums of two unknowns are told apart by their parts.
    struct Sum {
        Symbol a, b;
        unsigned shift;
        std::uint32_t origin;
    };
    std::uint32_t count() const { return std::uint32_t(block_->insts.size()); }
    ir::Inst const& inst(std::uint32_t i) const { return block_->insts[i]; }
    static Symbol moved(Symbol s, std::uint64_t by) { return {s.origin, std::int64_t(std::uint64_t(s.offset) + by)}; }
    // Null: not among the slots watched.
    Slot* slot(std::int64_t at) {
        return at >= 0 && at % 8 == 0 && at / 8 < std::int64_t(slots_.size()) ? &slots_[std::size_t(at / 8)] : nullptr;
    }
    Symbol symbol_of(std::uint32_t i);
    void note_put(ir::Inst const& n);
    Symbol content(ir::Inst const& n, Symbol fresh);
    Symbol lea(ir::Inst const& n, Symbol fresh);
    // Of the accesses from the one numbered `number`, before instruction `end`.
    AccessGroup grown(std::size_t number, std::uint32_t end);

    ir::Block const* block_ = nullptr;
    Plan const* plan_ = nullptr;
    AccessGroups found_;
    std::vector<Symbol> symbols_;
    std::array<Slot, 256> slots_; // the first 2 KiB of the context
    std::uint64_t knowledge_ = 0;
    std::vector<Sum> sums_;
};

} // namespace vmm::tcg::x64
