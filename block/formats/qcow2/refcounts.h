// Refcounts: which host clusters are in use, and by how many; allocation of clusters.
#pragma once
#include "block/formats/qcow2/areas.h"
#include "block/formats/qcow2/layout.h"
#include "block/formats/qcow2/table_cache.h"

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace vmm::block::qcow2 {

struct Extent {
    std::uint64_t offset = 0; // in the image file
    std::uint64_t clusters = 0;
    bool fresh = false; // never written: reads as zeroes
};

// All counts change in memory; Store::commit() writes them out in the right order. Errors with EIO mean the file lies
// ("corrupt() is set"), others are the world's.
class Refcounts {
public:
    Refcounts(BlockDevice& file, Header& header, AreaMap& areas, std::size_t max_blocks);

    // Reads the refcount table.
    Task<Result<void>> load();
    // The count of a cluster by number; 0 where no block describes it.
    Task<Result<std::uint64_t>> get(std::uint64_t cluster);
    // Adds `delta` (+1 or -1) to `count` clusters from byte `offset` on. Below 0: EIO; above the width: EINVAL.
    Task<Result<void>> change(std::uint64_t offset, std::uint64_t count, int delta);
    // Makes a count what a check found it should be.
    Task<Result<void>> set(std::uint64_t cluster, std::uint64_t value);

    // 1 to `wanted` free clusters in a row, now counted once; no waiting, nullopt when the next refcount block is not
    // at hand.
    std::optional<Extent> try_allocate(std::uint64_t wanted);
    // The same, reading or making refcount blocks as needed.
    Task<Result<Extent>> allocate(std::uint64_t wanted);
    // Exactly `count` clusters in a row.
    Task<Result<Extent>> allocate_exact(std::uint64_t count);
    // Room for `bytes` (at most a cluster) of compressed data; each cluster touched is counted once. Byte offset.
    Task<Result<std::uint64_t>> allocate_bytes(std::uint64_t bytes);

    // The number behind the last cluster in use.
    Task<Result<std::uint64_t>> first_unused_cluster();

    // For commit: what must be written.
    TableCache& blocks() { return blocks_; }
    std::vector<std::uint64_t> const& table() const { return table_; }
    bool table_dirty() const { return table_dirty_; }
    bool table_moved() const { return table_moved_; }
    void table_written() { table_dirty_ = table_moved_ = false; }
    void table_not_written(bool moved) { table_dirty_ = true, table_moved_ |= moved; }
    // Old refcount tables to free once the new one is in use.
    std::vector<Extent> take_retired() { return std::exchange(retired_, {}); }

    // A finding that the file's own tables contradict each other, for marking the image corrupt; cleared by the call.
    std::optional<std::string> take_corruption() { return std::exchange(corruption_, {}); }

    // Starts over with a table found elsewhere (after a rebuild).
    void replace_table(std::vector<std::uint64_t> table);
    // The same with counts of another width, 2^order bits.
    void replace_structure(std::vector<std::uint64_t> table, unsigned order);

    // Which blocks of counts of 2^order bits it takes to hold all counts; EINVAL (in QEMU's words) when one does not
    // fit into them.
    Task<Result<std::set<std::uint64_t>>> blocks_at_width(unsigned order);
    // Writes the counts from cluster `first` on as counts of 2^order bits into `to`, zeroes so far, as many as fit.
    Task<Result<void>> copy_counts(std::uint64_t first, unsigned order, Bytes to);

private:
    Geometry const& g() const { return geometry_; }
    Error corrupt(std::string what);
    // The block that describes `cluster`; null where there is none.
    Task<Result<TableRef>> block_of(std::uint64_t cluster);
    // The same, making it when missing; alloc_mutex_ is held.
    Task<Result<TableRef>> open_block(std::uint64_t index);
    Task<Result<Extent>> allocate_exact_locked(std::uint64_t count);
    // The table no longer fits where it is: what its last entries count must not be relied on yet.
    bool outgrown() const;
    // Moves the table when it has outgrown its place.
    Task<Result<void>> grow_table();
    // Takes `cluster` if it is free (compressed data that goes on into it).
    Task<Result<bool>> allocate_at(std::uint64_t cluster);
    Result<void> extend_table_to(std::uint64_t entries);
    std::optional<Extent> take_free(std::uint64_t wanted);
    Result<void> claim_new(std::uint64_t cluster, std::string_view what);
    void put(Table& block, std::uint64_t index, std::uint64_t value);
    Extent take_extent(std::uint64_t cluster, std::uint64_t count);

    BlockDevice& file_;
    Header& header_;
    Geometry geometry_;
    AreaMap& areas_;
    DebugEvents* debug_; // the file's, or null
    TableCache blocks_;
    std::vector<std::uint64_t> table_; // host order
    bool table_dirty_ = false, table_moved_ = false;
    AsyncMutex alloc_mutex_;
    std::uint64_t next_free_ = 0; // no free cluster before this one
    TableRef current_;            // the block that describes next_free_, when known
    std::uint64_t current_index_ = 0;
    std::uint64_t fresh_from_ = 0; // clusters from here on were never written
    AsyncMutex bytes_mutex_;
    std::uint64_t bytes_next_ = 0; // where the next compressed data may go; 0: nowhere yet
    std::vector<Extent> retired_;
    std::optional<std::string> corruption_;
};

} // namespace vmm::block::qcow2
