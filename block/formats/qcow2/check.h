// Checker: walks all metadata of an image, compares it with the refcounts, and repairs.
#pragma once
#include "block/core/capabilities.h"
#include "block/formats/qcow2/snapshots.h"
#include "block/formats/qcow2/store.h"

#include <array>
#include <functional>
#include <map>
#include <memory>

namespace vmm::block::qcow2 {

// References found to each cluster. Memory grows with what is referenced, not with what the file claims to be.
class ReferenceMap {
public:
    static constexpr std::uint64_t chunk_clusters = 4096;
    void add(std::uint64_t cluster) {
        auto& chunk = chunks_[cluster / chunk_clusters];
        if (!chunk) chunk = std::make_unique<Chunk>();
        std::uint32_t& count = (*chunk)[cluster % chunk_clusters];
        if (count != UINT32_MAX) ++count;
    }
    std::uint32_t get(std::uint64_t cluster) const {
        auto found = chunks_.find(cluster / chunk_clusters);
        return found == chunks_.end() ? 0 : (*found->second)[cluster % chunk_clusters];
    }
    using Chunk = std::array<std::uint32_t, chunk_clusters>;
    std::map<std::uint64_t, std::unique_ptr<Chunk>> const& chunks() const { return chunks_; }

private:
    std::map<std::uint64_t, std::unique_ptr<Chunk>> chunks_;
};

// One check. No other request may be in flight.
class Checker {
public:
    // Clusters of a part of the image the checker does not know itself (bitmaps).
    using Extents = std::vector<Extent>;
    Checker(Store& store, SnapshotTable& snapshots, Extents others, RepairMode repair,
            std::function<void(std::string_view)> message)
        : store_(store), snapshots_(snapshots), g_(store.geometry()), others_(std::move(others)), repair_(repair),
          message_(std::move(message)) {}

    Task<Result<CheckReport>> run();

private:
    bool fixes_errors() const { return repair_ == RepairMode::all; }
    void corruption(std::string text);
    // Counts references to the clusters of [offset, offset + bytes).
    void reference(std::uint64_t offset, std::uint64_t bytes);
    Task<Result<void>> walk_l1(std::vector<std::uint64_t> const& l1, std::uint64_t offset, bool active);
    Task<Result<void>> walk_l2(std::uint64_t offset, bool active);
    void walk_entry(Table& table, std::uint64_t index, L2Entry e, bool active, std::uint64_t& next_contiguous);
    Task<Result<void>> walk_refcounts();
    Task<Result<void>> compare_counts(RepairMode repair);
    Task<Result<void>> compare_one(std::uint64_t cluster, std::uint64_t count, RepairMode repair);
    // Then no count can be trusted, and changing counts might allocate what is in use: a repair starts over.
    Task<Result<bool>> counts_call_used_clusters_free();
    Task<Result<void>> start_over();
    Task<Result<void>> check_copied_flags();
    // Writes a whole new refcount table and blocks behind everything that is in use.
    Task<Result<void>> rebuild();

    Store& store_;
    SnapshotTable& snapshots_;
    Geometry g_;
    Extents others_;
    RepairMode repair_;
    std::function<void(std::string_view)> message_;
    ReferenceMap references_;
    CheckReport report_;
    std::uint64_t file_end_ = 0;      // whole clusters
    std::uint64_t wrong_counts_ = 0;  // too small ones that were told and not repaired
    std::uint64_t broken_blocks_ = 0; // refcount blocks that cannot be used: all is to be rebuilt
};

} // namespace vmm::block::qcow2
