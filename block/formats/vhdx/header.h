// The fixed parts of a VHDX file ([MS-VHDX] section 2), and the limits we accept.
#pragma once
#include "block/core/io_spans.h"
#include "vmm/base/endian.h"
#include "vmm/base/result.h"

#include <array>
#include <string>
#include <string_view>

namespace vmm::block::vhdx {

inline constexpr std::string_view file_signature = "vhdxfile";
inline constexpr std::uint64_t header_offsets[] = {64 << 10, 128 << 10};
inline constexpr std::uint64_t region_offsets[] = {192 << 10, 256 << 10};
inline constexpr std::size_t header_bytes = 4096, region_table_bytes = 64 << 10, metadata_table_bytes = 64 << 10;
inline constexpr std::uint32_t max_regions = 2047, max_metadata_items = 2047;
inline constexpr std::uint32_t max_log_bytes = 64u << 20;
inline constexpr std::uint32_t min_block_bytes = 1u << 20, max_block_bytes = 256u << 20;
inline constexpr std::uint64_t max_disk_bytes = std::uint64_t(64) << 40;

using Guid = std::array<std::uint8_t, 16>;

struct Header { // 2.2.2
    std::array<char, 4> signature;
    le32 checksum;
    le64 sequence;
    Guid file_write_id, data_write_id, log_id;
    le16 log_version, version;
    le32 log_length;
    le64 log_offset;
};
static_assert(sizeof(Header) == 80);

struct RegionTableHeader { // 2.2.3.1
    std::array<char, 4> signature;
    le32 checksum, count, reserved;
};
struct RegionEntry { // 2.2.3.2
    Guid id;
    le64 offset;
    le32 length, required;
};
static_assert(sizeof(RegionEntry) == 32);

struct MetadataHeader { // 2.6.1.1
    std::array<char, 8> signature;
    le16 reserved, count;
    std::array<std::uint8_t, 20> reserved2;
};
struct MetadataEntry { // 2.6.1.2
    Guid id;
    le32 offset, length, flags, reserved;
};
static_assert(sizeof(MetadataHeader) == 32 && sizeof(MetadataEntry) == 32);
inline constexpr std::uint32_t metadata_required = 4;

// BAT entries (2.5.1): a state in the low three bits, a file offset from bit 20 on. State 7 (partially present) is for
// differencing disks; 0 (absent) to 3 (unmapped) read as zero.
inline constexpr std::uint64_t bat_unmapped = 3, bat_present = 6, bat_state_mask = 7;
inline constexpr std::uint64_t bat_offset_mask = ~std::uint64_t(0xfffff);

// Identifiers as they lie in the file.
extern Guid const region_bat, region_metadata;
extern Guid const item_file_parameters, item_disk_size, item_disk_id, item_logical_sector, item_physical_sector,
    item_parent_locator;

// CRC-32C (Castagnoli) with the four bytes at offset 4 taken as zero: every structure has its checksum there.
std::uint32_t checksum_of(ConstBytes structure);

// Where the two regions lie, from a region table of region_table_bytes. Errors name the field.
struct Regions {
    std::uint64_t bat_offset = 0, metadata_offset = 0;
    std::uint32_t bat_length = 0, metadata_length = 0;
};
Result<Regions> parse_regions(ConstBytes table, std::string const& filename);

// What the metadata items say of the disk.
struct Disk {
    std::uint64_t size = 0;
    std::uint32_t block_bytes = 0, sector_bytes = 0;
    // Payload blocks to one sector bitmap entry in the BAT.
    std::uint64_t chunk_ratio() const { return (std::uint64_t(1) << 23) * sector_bytes / block_bytes; }
    std::uint64_t bat_entries() const;
};
// `region`: the metadata region, or its first 2 MiB.
Result<Disk> parse_metadata(ConstBytes region, std::string const& filename);

} // namespace vmm::block::vhdx
