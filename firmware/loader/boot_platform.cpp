#include "firmware/loader/boot_platform.h"

#include "vmm/base/checked.h"

#include <algorithm>

namespace vmm::firmware {

namespace {
// Adds [first, end) of `kind` without the parts that `holes` (sorted) cover.
void add_without(std::vector<MemoryMapEntry>& map, GuestPhys first, GuestPhys end,
                 std::vector<AddressRange> const& holes) {
    for (AddressRange const& hole : holes) {
        if (hole.last < first || hole.first >= end) continue;
        if (hole.first > first) map.push_back({first, hole.first - first, MemoryKind::ram});
        first = std::min(end, hole.last + 1);
    }
    if (first < end) map.push_back({first, end - first, MemoryKind::ram});
}
} // namespace

std::vector<MemoryMapEntry> memory_map(BootPlatform const& platform) {
    std::vector<AddressRange> holes = platform.acpi_tables;
    std::sort(holes.begin(), holes.end(), [](auto const& a, auto const& b) { return a.first < b.first; });

    std::vector<MemoryMapEntry> map;
    map.push_back({0, std::min<std::uint64_t>(ebda_base, platform.ram_below_4g), MemoryKind::ram});
    map.push_back({ebda_base, 0xa0000 - ebda_base, MemoryKind::reserved});
    map.push_back({0xf0000, 0x10000, MemoryKind::reserved});
    add_without(map, high_memory_base, platform.ram_below_4g, holes);
    for (AddressRange const& hole : holes)
        if (hole.first >= high_memory_base) map.push_back({hole.first, hole.size(), MemoryKind::acpi_reclaimable});
    map.push_back({0xfffc0000, 0x40000, MemoryKind::reserved}); // flash
    if (platform.ram_above_4g != 0) add_without(map, 4 * GiB, 4 * GiB + platform.ram_above_4g, holes);
    std::erase_if(map, [](auto const& e) { return e.size == 0; });
    std::sort(map.begin(), map.end(), [](auto const& a, auto const& b) { return a.base < b.base; });
    return map;
}

RamPlanner::RamPlanner(std::vector<MemoryMapEntry> const& map) {
    for (MemoryMapEntry const& e : map) {
        if (e.kind != MemoryKind::ram || e.base >= 4 * GiB) continue;
        free_.push_back({e.base, e.base + std::min(e.size, 4 * GiB - e.base)});
    }
    cut(0, page_size);
}

void RamPlanner::cut(GuestPhys first, GuestPhys end) {
    std::vector<Span> left;
    for (Span const& s : free_) {
        if (s.first < std::min(first, s.end)) left.push_back({s.first, std::min(first, s.end)});
        if (std::max(end, s.first) < s.end) left.push_back({std::max(end, s.first), s.end});
    }
    free_ = std::move(left);
}

bool RamPlanner::is_free(GuestPhys base, std::uint64_t size) const {
    auto const end = checked_add(base, size);
    if (!end) return false;
    return std::any_of(free_.begin(), free_.end(), [&](Span const& s) { return s.first <= base && *end <= s.end; });
}

Result<void> RamPlanner::take(GuestPhys base, std::uint64_t size, char const* what) {
    if (!is_free(base, size))
        return error("{} ({} bytes at {:#x}) does not fit into guest RAM there; give the guest more memory (-m)", what,
                     size, base);
    cut(base, base + size);
    return {};
}

std::optional<GuestPhys> RamPlanner::take_lowest(std::uint64_t size, std::uint64_t alignment, GuestPhys min,
                                                 GuestPhys end) {
    size = std::max<std::uint64_t>(size, 1);
    for (Span const& s : free_) {
        GuestPhys const base = align_up(std::max(s.first, min), alignment);
        GuestPhys const limit = std::min(s.end, end);
        if (base > limit || limit - base < size) continue;
        cut(base, base + size);
        return base;
    }
    return std::nullopt;
}

std::optional<GuestPhys> RamPlanner::take_highest(std::uint64_t size, std::uint64_t alignment, GuestPhys end) {
    size = std::max<std::uint64_t>(size, 1);
    for (auto s = free_.rbegin(); s != free_.rend(); ++s) {
        GuestPhys const limit = std::min(s->end, end);
        if (limit < size) continue;
        GuestPhys const base = align_down(limit - size, alignment);
        if (base < s->first) continue;
        cut(base, base + size);
        return base;
    }
    return std::nullopt;
}

std::uint64_t RamPlanner::largest_free(GuestPhys min, GuestPhys end) const {
    std::uint64_t best = 0;
    for (Span const& s : free_) {
        GuestPhys const first = std::max(s.first, min), last = std::min(s.end, end);
        if (first < last) best = std::max(best, last - first);
    }
    return best;
}

} // namespace vmm::firmware
