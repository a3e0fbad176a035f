// What a CPU's page tables map, as a list of ranges: for people (`info mem`), without side effects.
#pragma once
#include "vmm/cpu/x86/state.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace vmm::x86 {

// Neighbouring pages with the same rights. [first, last], linear.
struct MappedRange {
    std::uint64_t first = 0, last = 0;
    bool user = false, writable = false;
};
struct PageMap {
    std::vector<MappedRange> ranges; // in order of address
    bool whole = true;               // false: the tables are larger than the limits below, what follows is left out
};

// `read` gives `size` bytes (4 or 8) of physical memory, nothing where there is no RAM. Paging is on in `state`. Guests
// can make tables that map one another without end: work and result are limited.
using ReadTable = std::function<std::optional<std::uint64_t>(std::uint64_t address, unsigned size)>;
inline constexpr unsigned max_map_entries = 4u << 20, max_map_ranges = 20'000;
PageMap list_pages(State const& state, ReadTable const& read);

} // namespace vmm::x86
