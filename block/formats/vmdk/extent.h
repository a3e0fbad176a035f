// One extent of a VMDK: a stretch of the disk and the file it lies in, with the grain tables of a sparse one.
#pragma once
#include "block/core/block_device.h"
#include "block/formats/mapped/mapped_image.h"
#include "block/formats/mapped/second_level.h"
#include "block/formats/vmdk/header.h"

#include <memory>
#include <string>
#include <vector>

namespace vmm::block::vmdk {

enum class ExtentKind : std::uint8_t { flat, zero, sparse };

class Extent {
public:
    using Table = SecondLevel<le32>::Table;

    ExtentKind kind = ExtentKind::flat;
    std::string filename;                // resolved
    std::string type;                    // the descriptor's word; empty for a monolithic image
    std::uint64_t start = 0, length = 0; // of the disk, in bytes
    std::uint64_t flat_offset = 0;
    bool compressed = false, markers = false, zeroed_grains = false, appendable = true;
    std::uint64_t grain_bytes = 0;
    BlockDevice* device = nullptr; // owned below, or the image's own file
    std::unique_ptr<BlockDevice> owned;

    // Reads and checks the header (and footer) and directory of a sparse extent in `device`. `capacity_sectors` is set
    // from it.
    Task<Result<void>> load_sparse(std::uint64_t& capacity_sectors, SparseHeader& header);
    // Where the header, the directories and the tables lie: (offset, bytes).
    std::vector<std::pair<std::uint64_t, std::uint64_t>> metadata() const;
    // The grain that holds byte `offset` of the disk; nothing when its table is not in memory.
    Result<std::optional<Mapping>> find(std::uint64_t offset) const;
    Task<Result<void>> load_table(std::uint64_t offset);
    // Loads the table of `offset` and keeps it in memory until set_entry().
    Task<Result<void>> pin_table(std::uint64_t offset);
    // Room for a grain, or for `bytes` of compressed data, at the end of the file.
    std::uint64_t append(std::uint64_t bytes);
    // The entry of the grain at `offset` says `sector` from now on. Its table is pinned, or in memory since
    // find().
    void set_entry(std::uint64_t offset, std::uint32_t sector);
    bool clean() const { return tables_.clean(); }
    // Data made stable, then both copies of changed tables, then those.
    Task<Result<void>> write_back();
    // Findings about every table.
    Task<Result<void>> check(CheckReport& report, std::function<void(std::string_view)> message);

private:
    std::uint64_t table_span() const { return entries_ * grain_bytes; }
    Task<Result<void>> load_cowd(std::uint64_t& capacity_sectors);
    Task<Result<void>> read_directory(std::uint64_t sector, std::vector<le32>& directory, std::string_view what);
    Result<void> check_header(SparseHeader const& header) const;
    Task<Result<std::vector<le32>>> read_table(std::uint64_t index);
    Task<Result<void>> write_sector(std::uint64_t table, std::uint64_t at, ConstBytes bytes);

    std::uint64_t directory_sector_ = 0;
    std::uint64_t entries_ = 512;             // of a table
    std::vector<le32> directory_, redundant_; // sectors of tables; redundant_ may be empty
    SecondLevel<le32> tables_;
    std::uint64_t end_ = 0; // where the next grain goes, in bytes
};

} // namespace vmm::block::vmdk
