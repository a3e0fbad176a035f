#include "block/formats/vhdx/header.h"

#include "vmm/base/checked.h"

#include <algorithm>
#include <cstring>

namespace vmm::block::vhdx {

namespace {

constexpr std::uint8_t hex_digit(char c) { return std::uint8_t(c <= '9' ? c - '0' : c - 'A' + 10); }

// "2DC27766-F623-4200-9D64-115E9BFD4A08": the first three groups are stored little-endian.
constexpr Guid guid(std::string_view text) {
    constexpr std::uint8_t order[] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    Guid id{};
    std::size_t at = 0;
    for (std::uint8_t place : order) {
        if (text[at] == '-') ++at;
        id[place] = std::uint8_t(hex_digit(text[at]) << 4 | hex_digit(text[at + 1]));
        at += 2;
    }
    return id;
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t crc = i;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        table[i] = crc;
    }
    return table;
}
constexpr std::array<std::uint32_t, 256> crc_table = make_crc_table();

template <class T> T read_at(ConstBytes bytes, std::size_t offset) {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}

bool overlap(std::uint64_t a, std::uint64_t a_length, std::uint64_t b, std::uint64_t b_length) {
    return a < b + b_length && b < a + a_length;
}

} // namespace

Guid const region_bat = guid("2DC27766-F623-4200-9D64-115E9BFD4A08");
Guid const region_metadata = guid("8B7CA206-4790-4B9A-B8FE-575F050F886E");
Guid const item_file_parameters = guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B");
Guid const item_disk_size = guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8");
Guid const item_disk_id = guid("BECA12AB-B2E6-4523-93EF-C309E000C746");
Guid const item_logical_sector = guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F");
Guid const item_physical_sector = guid("CDA348C7-445D-4471-9CC9-E9885251C556");
Guid const item_parent_locator = guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C");

std::uint32_t checksum_of(ConstBytes structure) {
    std::uint32_t crc = ~0u;
    for (std::size_t i = 0; i < structure.size(); ++i) {
        std::uint8_t byte = i >= 4 && i < 8 ? 0 : structure[i];
        crc = crc_table[(crc ^ byte) & 0xff] ^ crc >> 8;
    }
    return ~crc;
}

Result<Regions> parse_regions(ConstBytes table, std::string const& filename) {
    auto bad = [&](std::string_view why) { return error("Could not open '{}': VHDX region table: {}", filename, why); };
    auto header = read_at<RegionTableHeader>(table, 0);
    if (std::string_view(header.signature.data(), 4) != "regi") return bad("signature is missing");
    if (header.checksum != checksum_of(table)) return bad("checksum is wrong");
    if (header.count > max_regions) return bad("EntryCount is too large");
    Regions regions;
    for (std::uint32_t i = 0; i < header.count; ++i) {
        auto entry = read_at<RegionEntry>(table, sizeof header + i * sizeof(RegionEntry));
        if (entry.offset < MiB || entry.offset % MiB || entry.length % MiB || entry.length == 0 ||
            entry.offset > INT64_MAX)
            return bad(fmt::format("FileOffset or Length of region {} is not a multiple of 1 MiB in range", i));
        if (entry.id == region_bat) {
            regions.bat_offset = entry.offset;
            regions.bat_length = entry.length;
        } else if (entry.id == region_metadata) {
            regions.metadata_offset = entry.offset;
            regions.metadata_length = entry.length;
        } else if (entry.required & 1) {
            return bad("holds a required region we do not know");
        }
    }
    if (!regions.bat_length || !regions.metadata_length) return bad("the BAT or the metadata region is missing");
    if (overlap(regions.bat_offset, regions.bat_length, regions.metadata_offset, regions.metadata_length))
        return bad("the BAT and the metadata region overlap");
    return regions;
}

std::uint64_t Disk::bat_entries() const {
    std::uint64_t blocks = div_ceil<std::uint64_t>(size, block_bytes);
    return blocks == 0 ? 0 : blocks + (blocks - 1) / chunk_ratio();
}

Result<Disk> parse_metadata(ConstBytes region, std::string const& filename) {
    auto bad = [&](std::string_view why) { return error("Could not open '{}': VHDX metadata: {}", filename, why); };
    auto header = read_at<MetadataHeader>(region, 0);
    if (std::string_view(header.signature.data(), 8) != "metadata") return bad("signature is missing");
    if (header.count > max_metadata_items) return bad("EntryCount is too large");
    Disk disk;
    for (std::uint32_t i = 0; i < header.count; ++i) {
        auto entry = read_at<MetadataEntry>(region, sizeof header + i * sizeof(MetadataEntry));
        std::uint64_t offset = entry.offset;
        bool inside = offset >= metadata_table_bytes && offset + entry.length <= region.size();
        auto holds = [&](Guid const& id, std::uint32_t bytes) {
            return entry.id == id && inside && entry.length >= bytes;
        };
        if (holds(item_file_parameters, 8)) {
            disk.block_bytes = read_at<le32>(region, offset);
            if (read_at<le32>(region, offset + 4) & 2) return bad("differencing disks are not supported (HasParent)");
        } else if (holds(item_disk_size, 8)) {
            disk.size = read_at<le64>(region, offset);
        } else if (holds(item_logical_sector, 4)) {
            disk.sector_bytes = read_at<le32>(region, offset);
        } else if (entry.id == item_parent_locator) {
            return bad("differencing disks are not supported (parent locator)");
        } else if (entry.id != item_disk_id && entry.id != item_physical_sector && entry.flags & metadata_required) {
            return bad(fmt::format("item {} is required, but unknown or out of its region", i));
        }
    }
    if (!is_power_of_two(disk.block_bytes) || disk.block_bytes < min_block_bytes || disk.block_bytes > max_block_bytes)
        return bad(fmt::format("BlockSize is {}: must be a power of two from 1 to 256 MiB", disk.block_bytes));
    if (disk.sector_bytes != 512 && disk.sector_bytes != 4096)
        return bad(fmt::format("LogicalSectorSize is {}: must be 512 or 4096", disk.sector_bytes));
    if (disk.size > max_disk_bytes || disk.size % disk.sector_bytes)
        return bad(fmt::format("VirtualDiskSize is {}: must be a multiple of the sector size up to 64 TiB", disk.size));
    return disk;
}

} // namespace vmm::block::vhdx
