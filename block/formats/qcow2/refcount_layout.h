// Writing a whole new refcount structure behind everything in use: for a repair, or for counts of another width.
#pragma once
#include "block/core/block_device.h"
#include "block/formats/qcow2/layout.h"

#include <functional>
#include <set>
#include <vector>

namespace vmm::block::qcow2 {

// Where the parts of a new refcount structure lie: the table, then its blocks in the order of their index.
struct RefcountLayout {
    std::uint64_t start = 0; // cluster
    std::uint64_t table_clusters = 0;
    std::set<std::uint64_t> blocks; // indices
    std::uint64_t end() const { return start + table_clusters + blocks.size(); }
};

// A structure with the blocks given and those that describe itself, from cluster `start` on. EFBIG: its table would be
// larger than one may be.
Result<RefcountLayout> lay_out_refcounts(Geometry const& g, std::uint64_t start, std::set<std::uint64_t> blocks);

// Puts the counts of block `index` into its bytes, zero so far.
using FillCounts = std::function<Task<Result<void>>(std::uint64_t index, Bytes block)>;
// Writes the blocks, with the structure's own clusters counted once, and the table. No flush. Returns the table.
Task<Result<std::vector<std::uint64_t>>> write_refcounts(BlockDevice& file, Geometry g, RefcountLayout layout,
                                                         FillCounts fill);

} // namespace vmm::block::qcow2
