#include "vmm/kvm/kvm_slots.h"

#include <algorithm>

namespace vmm::kvm {

namespace {

// Appends [first, last] of `ram`, cut to whole pages and joined to its predecessor where that is contiguous.
void append(std::vector<Slot>& slots, GuestPhys first, GuestPhys last, FlatRange const& piece, bool read_only) {
    std::uint64_t offset = piece.backing.offset + (first - piece.range.first);
    if ((first ^ offset) & (page_size - 1)) return; // cannot be mapped by pages
    GuestPhys start = (first + page_size - 1) & ~(page_size - 1);
    if (start < first || start > last) return;
    std::uint64_t size = (last - start + 1) & ~(page_size - 1);
    if (!size) return;
    offset += start - first;
    RamBlock* ram = piece.backing.ram;
    if (!slots.empty()) {
        Slot& before = slots.back();
        if (before.address + before.size == start && before.ram == ram && before.offset + before.size == offset &&
            before.read_only == read_only) {
            before.size += size;
            return;
        }
    }
    slots.push_back({.address = start,
                     .size = size,
                     .ram = ram,
                     .offset = offset,
                     .read_only = read_only,
                     .dirty_log = ram->dirty_log()});
}

// Whether the write piece shows the same bytes as the read piece at address `a`.
bool same_bytes(FlatRange const& read, FlatRange const& write, GuestPhys a) {
    return write.backing.ram == read.backing.ram &&
           write.backing.offset + (a - write.range.first) == read.backing.offset + (a - read.range.first);
}

} // namespace

std::vector<Slot> wanted_slots(FlatView const& view) {
    std::vector<Slot> slots;
    std::size_t w = 0;
    for (FlatRange const& read : view.reads) {
        if (!read.backing.ram) continue;
        GuestPhys at = read.range.first;
        for (;;) {
            while (w < view.writes.size() && view.writes[w].range.last < at) ++w;
            FlatRange const* write = w < view.writes.size() ? &view.writes[w] : nullptr;
            GuestPhys end = read.range.last;
            bool shared = false;
            if (write && write->range.first <= at) {
                end = std::min(end, write->range.last);
                shared = same_bytes(read, *write, at);
            } else if (write && write->range.first <= end) {
                end = write->range.first - 1;
            }
            append(slots, at, end, read, !shared);
            if (end == read.range.last) break;
            at = end + 1;
        }
    }
    return slots;
}

unsigned SlotTable::free_id() const {
    for (unsigned id = 0;; ++id)
        if (std::ranges::none_of(slots_, [&](Slot const& s) { return s.id == id; })) return id;
}

std::optional<std::vector<SlotTable::Change>> SlotTable::update(std::vector<Slot> wanted) {
    if (wanted.size() > limit_) return std::nullopt;
    std::vector<Change> changes;
    // The read-only flag cannot be changed in place (KVM API, KVM_SET_USER_MEMORY_REGION), the log flag can.
    auto stays = [&](Slot const& old) {
        return std::ranges::any_of(wanted,
                                   [&](Slot const& s) { return s.same_place(old) && s.read_only == old.read_only; });
    };
    std::erase_if(slots_, [&](Slot const& old) {
        if (stays(old)) return false;
        changes.push_back({old, true});
        return true;
    });
    for (Slot& slot : wanted) {
        auto found = std::ranges::find_if(slots_, [&](Slot const& s) { return s.same_place(slot); });
        if (found != slots_.end()) {
            if (found->dirty_log == slot.dirty_log) continue;
            found->dirty_log = slot.dirty_log;
            changes.push_back({*found, false});
            continue;
        }
        slot.id = free_id();
        slots_.push_back(slot);
        changes.push_back({slot, false});
    }
    return changes;
}

} // namespace vmm::kvm
