// Memory slots: which pieces of an address space's flat view KVM maps for the guest, and the fewest changes from one
// set of slots to the next.
#pragma once
#include "vmm/memory/address_space.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace vmm::kvm {

struct Slot {
    unsigned id = 0;
    GuestPhys address = 0;
    std::uint64_t size = 0; // whole pages
    RamBlock* ram = nullptr;
    std::uint64_t offset = 0; // in `ram`, page aligned
    bool read_only = false;   // writes exit to userspace
    bool dirty_log = false;
    // The same memory at the same place (flags aside).
    bool same_place(Slot const& other) const {
        return address == other.address && size == other.size && ram == other.ram && offset == other.offset;
    }
};

// The slots a flat view wants, in address order, ids not set. Whole pages of RAM that reads and writes share become
// plain slots; RAM that only reads see becomes a read-only slot; everything else (devices, holes, write-only RAM, parts
// of pages) is left to exits.
std::vector<Slot> wanted_slots(FlatView const& view);

// Keeps the slots of one VM. Not thread-safe.
class SlotTable {
public:
    // At most `limit` slots can exist.
    explicit SlotTable(unsigned limit) : limit_(limit) {}

    struct Change {
        Slot slot;
        bool remove = false;
    };
    // The changes that turn the present slots into `wanted`, removals first, so that nothing ever overlaps; remembers
    // the result. Ids of removed slots are used again. Nothing when there are more slots than the limit.
    std::optional<std::vector<Change>> update(std::vector<Slot> wanted);
    std::vector<Slot> const& slots() const { return slots_; }

private:
    unsigned free_id() const;
    unsigned limit_;
    std::vector<Slot> slots_;
};

} // namespace vmm::kvm
