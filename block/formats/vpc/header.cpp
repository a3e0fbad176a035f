#include "block/formats/vpc/header.h"

#include "vmm/base/checked.h"

#include <algorithm>

namespace vmm::block::vpc {

namespace {

template <class T> std::uint32_t inverted_sum(T object) {
    object.checksum = 0;
    auto bytes = reinterpret_cast<std::uint8_t const*>(&object);
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < sizeof object; ++i) sum += bytes[i];
    return ~sum;
}

// Makers whose disks are as large as current_size says; for Virtual PC and others the geometry counts.
constexpr std::string_view sized_creators[] = {{"win ", 4}, {"d2v ", 4}, {"tap\0", 4}, {"vs  ", 4},
                                               {"CTXS", 4}, {"qem2", 4}, {"wa\0\0", 4}};

} // namespace

std::uint32_t checksum_of(Footer footer) { return inverted_sum(footer); }
std::uint32_t checksum_of(DynamicHeader header) { return inverted_sum(header); }

bool has_cookie(Footer const& footer) { return std::string_view(footer.cookie.data(), 8) == footer_cookie; }

std::uint64_t disk_bytes(Footer const& footer) {
    std::string_view creator(footer.creator.data(), 4);
    bool sized = std::ranges::find(sized_creators, creator) != std::end(sized_creators);
    if (sized || footer.chs_sectors() == 0 || footer.chs_sectors() >= max_chs_sectors) return footer.current_size;
    return footer.chs_sectors() * sector_bytes;
}

Result<void> validate(Footer const& f, std::string const& filename) {
    auto bad = [&](std::string_view field, std::uint64_t value, std::string_view why) {
        return error("Could not open '{}': VHD footer field {} is {}: {}", filename, field, value, why);
    };
    if (!has_cookie(f)) return error("Could not open '{}': invalid VPC image: no VHD footer", filename);
    if (f.type == type_differencing) return bad("disk type", f.type, "differencing disks are not supported");
    if (f.type != type_fixed && f.type != type_dynamic) return bad("disk type", f.type, "unknown");
    if (disk_bytes(f) > max_disk_bytes) return bad("current size", disk_bytes(f), "more than 2040 GiB");
    return {};
}

Result<void> validate(DynamicHeader const& h, std::uint64_t disk_size, std::string const& filename) {
    auto bad = [&](std::string_view field, std::uint64_t value, std::string_view why) {
        return error("Could not open '{}': VHD dynamic header field {} is {}: {}", filename, field, value, why);
    };
    if (std::string_view(h.cookie.data(), 8) != dynamic_cookie)
        return error("Could not open '{}': the VHD dynamic header is missing", filename);
    if (!is_power_of_two(h.block_size) || h.block_size < sector_bytes || h.block_size > max_block_bytes)
        return bad("block size", h.block_size, "must be a power of two from 512 bytes to 256 MiB");
    if (h.entries > max_table_entries) return bad("max table entries", h.entries, "too many");
    if (std::uint64_t(h.entries) * h.block_size < disk_size)
        return bad("max table entries", h.entries, "too few for the disk");
    if (h.table_offset > INT64_MAX) return bad("table offset", h.table_offset, "out of range");
    return {};
}

Geometry geometry_of(std::uint64_t sectors) {
    sectors = std::min(sectors, max_chs_sectors);
    std::uint64_t per_track = 255, heads = 16, tracks = sectors / per_track;
    if (sectors < std::uint64_t(65535) * 16 * 63) {
        per_track = 17;
        tracks = sectors / per_track;
        heads = std::max<std::uint64_t>(4, div_ceil<std::uint64_t>(tracks, 1024));
        if (tracks >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
            tracks = sectors / per_track;
        }
        if (tracks >= heads * 1024) {
            per_track = 63;
            heads = 16;
            tracks = sectors / per_track;
        }
    }
    return {std::uint16_t(tracks / heads), std::uint8_t(heads), std::uint8_t(per_track)};
}

} // namespace vmm::block::vpc
