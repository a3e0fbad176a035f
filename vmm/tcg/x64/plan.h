// Plan: what one look over a block tells the emitter about its values and flags before any code is made.
#pragma once
#include "vmm/tcg/backend.h"
#include "vmm/tcg/ir/ir.h"

#include <array>
#include <cstdint>
#include <vector>

namespace vmm::tcg::x64 {

inline constexpr std::uint32_t no_index = ~0u;
inline constexpr unsigned max_pins = 16, max_unpinned = 32;

// Which guest registers live in host registers: context offset and host register of each. The others are known too.
struct Pins {
    struct Pin {
        std::uint32_t offset;
        int host;
    };
    std::array<Pin, max_pins> pin{};
    unsigned count = 0;
    // The pin whose 8 bytes overlap [offset, offset + size), or -1. size: at most 8.
    int find(std::int64_t offset, unsigned size) const { return find(pins_at_, offset, size); }
    // The general register in the context that [offset, offset + size) is part of, or -1 for none.
    int unpinned(std::int64_t offset, unsigned size) const { return find(unpinned_at_, offset, size); }
    void add(std::uint32_t offset, int host) {
        word(pins_at_, offset) = std::int8_t(count);
        pin[count++] = {offset, host};
    }
    // `index`: below max_unpinned.
    void add_unpinned(std::uint32_t offset, unsigned index) { word(unpinned_at_, offset) = std::int8_t(index); }

private:
    using ByWord = std::array<std::int8_t, 128>; // of the context's first KiB: what lies there
    static constexpr ByWord nothing = [] {
        ByWord all{};
        all.fill(-1);
        return all;
    }();
    static std::int8_t& word(ByWord& table, std::uint32_t offset) {
        VMM_ASSERT(offset / 8 < table.size() && offset % 8 == 0);
        return table[offset / 8];
    }
    static int at(ByWord const& table, std::int64_t offset) {
        return std::uint64_t(offset) / 8 < table.size() ? table[std::uint64_t(offset) / 8] : -1;
    }
    static int find(ByWord const& table, std::int64_t offset, unsigned size) {
        int first = at(table, offset);
        return first >= 0 ? first : at(table, offset + size - 1);
    }
    ByWord pins_at_ = nothing, unpinned_at_ = nothing;
};

struct ValuePlan {
    ir::ValueId root = ir::none; // the value this one is the same bits as, or itself
    std::uint32_t uses = 0, last_use = 0;
    std::uint32_t put_at = no_index; // the put whose pinned register this value is computed into
    std::int8_t pin = -1;            // gets and puts: the pin they touch
    // A get that needs no copy; a put whose slot keeps the value until that is used last.
    bool in_place = false;
    bool folded = false; // a lea that is computed anew at each use
    bool dead = false;   // a put that nothing sees before the next one
    bool wide = false;   // a load of a byte or word that is wanted with zeros above
    // cc as it is before / after this instruction: may something still look at it?
    bool flags_live_before = false, flags_live_after = false;
    bool unneeded = false; // no code is made for it: nobody wants the value, or others make it
    // While the plan is made.
    bool used_otherwise = false;            // not only as an address
    std::uint16_t changes = 0;              // gets and puts: how many of Plan::changes come before the next instruction
    std::uint32_t next_resident = no_index; // of the same pinned register
};

struct Plan {
    std::vector<ValuePlan> values;
    bool flags_dead_at_entry = false;    // cc is defined anew before anything can look
    bool vectors = false, wide = false;  // the block has values of 128 bits or more; of 256
    std::vector<std::uint16_t> accesses; // the loads and stores, but not those with LOCK
    std::vector<std::uint16_t> calls;
    // While it is made: the instructions that are a lea or a get; puts and calls that write the context.
    std::vector<std::uint16_t> leas, gets, changes;
};

bool may_fault(ir::Inst const& inst);
// Whether the op, with sets_flags, may leave some flag as it was.
bool keeps_some_flags(ir::Block const& block, ir::Inst const& inst);
// The count of a shift or rotate masked as the op does, or -1 when unknown.
int constant_count(ir::Block const& block, ir::Inst const& inst);

// `out`'s memory is used again.
void make_plan(ir::Block const& block, Pins const& pins, GuestInfo const& guest, Plan& out);

} // namespace vmm::tcg::x64
