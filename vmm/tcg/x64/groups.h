// Access groups: runs of guest memory accesses whose addresses differ by constants, so that one TLB check serves all.
#pragma once
#include "vmm/tcg/ir/ir.h"
#include "vmm/tcg/x64/plan.h"

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
AccessGroups find_groups(ir::Block const& block);

} // namespace vmm::tcg::x64
