// The two-level table of a qcow image: the first level in memory, second levels loaded as needed; both written back.
#pragma once
#include "block/core/block_device.h"
#include "block/formats/mapped/second_level.h"
#include "block/formats/qcow/header.h"

#include <set>
#include <vector>

namespace vmm::block::qcow {

class Tables {
public:
    Tables(BlockDevice& file, Header header) : file_(file), header_(header), l1_(header.l1_entries()) {}
    Task<Result<void>> load_l1();

    // Where tables lie: (offset, bytes) of the first level, then of each second level.
    std::vector<std::pair<std::uint64_t, std::uint64_t>> places() const;

    // The entry of the cluster at `offset` (0: none); nothing when its table must be loaded first.
    std::optional<std::uint64_t> find(std::uint64_t offset) const;
    bool has_table(std::uint64_t offset) const { return l1_[l1_index(offset)] != 0; }
    Task<Result<void>> load(std::uint64_t offset);
    // Makes sure the table of `offset` exists and stays in memory until set().
    Task<Result<void>> pin(std::uint64_t offset);
    void set(std::uint64_t offset, std::uint64_t entry);
    // Room at the end of the file: a whole cluster, aligned, or `bytes` of compressed data.
    std::uint64_t append_cluster();
    std::uint64_t append_bytes(std::uint64_t bytes);
    bool clean() const { return tables_.clean() && dirty_l1_.empty(); }
    // No entry names a cluster any more, here and in the file, which ends behind the first level from now on. What
    // comes next is written behind where it ended before: places known to have been tables stay unused.
    Task<Result<void>> clear();
    // Data made stable, then second levels, then the first.
    Task<Result<void>> write_back();

private:
    using Table = SecondLevel<be64>::Table;
    std::uint64_t l1_index(std::uint64_t offset) const { return offset >> (header_.cluster_bits + header_.l2_bits); }
    std::uint64_t l2_index(std::uint64_t offset) const {
        return (offset >> header_.cluster_bits) & (header_.l2_entries() - 1);
    }
    BlockDevice& file_;
    Header header_;
    Table l1_;
    SecondLevel<be64> tables_;         // by index in l1_
    std::set<std::uint64_t> dirty_l1_; // pieces
    std::uint64_t end_ = 0;
};

} // namespace vmm::block::qcow
