// Plan: what one look over a block tells the emitter about its values and flags before any code is made.
#pragma once
#include "vmm/tcg/backend.h"
#include "vmm/tcg/ir/ir.h"

#include <array>
#include <cstdint>
#include <vector>

namespace vmm::tcg::x64 {

inline constexpr std::uint32_t no_index = ~0u;
inline constexpr unsigned max_pins = 16;

// Which guest registers live in host registers: context offset and host register of each.
struct Pins {
    struct Pin {
        std::uint32_t offset;
        int host;
    };
    std::array<Pin, max_pins> pin{};
    unsigned count = 0;
    // The pin whose 8 bytes overlap [offset, offset + size), or -1.
    int find(std::int64_t offset, unsigned size) const {
        for (unsigned i = 0; i < count; ++i)
            if (offset < std::int64_t(pin[i].offset) + 8 && std::int64_t(pin[i].offset) < offset + size) return int(i);
        return -1;
    }
};

struct ValuePlan {
    ir::ValueId root = ir::none; // the value this one is the same bits as, or itself
    std::uint32_t uses = 0, last_use = 0;
    std::uint32_t put_at = no_index; // the put whose pinned register this value is computed into
    std::int8_t pin = -1;            // gets and puts: the pin they touch
    bool in_place = false;           // a get of a pinned register that needs no copy
    bool folded = false;             // a lea that is computed anew at each use
};

struct Plan {
    std::vector<ValuePlan> values;
    // cc as it is before / after instruction i: may something still look at it?
    std::vector<std::uint8_t> flags_live_before, flags_live_after;
    bool flags_dead_at_entry = false; // cc is defined anew before anything can look
};

bool may_fault(ir::Inst const& inst);
// Whether the op, with sets_flags, may leave some flag as it was.
bool keeps_some_flags(ir::Block const& block, ir::Inst const& inst);
// The count of a shift or rotate masked as the op does, or -1 when unknown.
int constant_count(ir::Block const& block, ir::Inst const& inst);

Plan make_plan(ir::Block const& block, Pins const& pins, GuestInfo const& guest);

} // namespace vmm::tcg::x64
