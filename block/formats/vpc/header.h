// VHD footer and dynamic header as they lie in the file (Microsoft "Virtual Hard Disk Image Format", 2006), and the
// limits we accept.
#pragma once
#include "vmm/base/endian.h"
#include "vmm/base/result.h"

#include <array>
#include <string>
#include <string_view>

namespace vmm::block::vpc {

inline constexpr std::uint32_t sector_bytes = 512;
inline constexpr std::uint32_t type_fixed = 2, type_dynamic = 3, type_differencing = 4;
inline constexpr std::uint32_t block_unused = 0xffffffff;
inline constexpr std::uint32_t default_block_bytes = 2u << 20;
inline constexpr std::uint32_t max_block_bytes = 256u << 20;
inline constexpr std::uint64_t max_disk_bytes = std::uint64_t(2040) << 30;
inline constexpr std::uint32_t max_table_entries = 1u << 26;
inline constexpr std::string_view footer_cookie = "conectix", dynamic_cookie = "cxsparse";
// The largest geometry there is: a larger disk is as large as current_size says.
inline constexpr std::uint64_t max_chs_sectors = std::uint64_t(65535) * 16 * 255;

struct Footer {
    std::array<char, 8> cookie{};
    be32 features{2};
    be32 version{0x00010000};
    be64 data_offset{UINT64_MAX}; // of the dynamic header
    be32 timestamp{};             // seconds since 2000-01-01 UTC
    std::array<char, 4> creator{'v', 'm', 'm', ' '};
    be32 creator_version{0x00010000};
    std::array<char, 4> creator_os{'W', 'i', '2', 'k'};
    be64 original_size{}, current_size{};
    be16 cylinders{};
    std::uint8_t heads = 0, sectors = 0;
    be32 type{};
    be32 checksum{};
    std::array<std::uint8_t, 16> id{};
    std::uint8_t saved_state = 0;
    std::array<std::uint8_t, 427> padding{};

    std::uint64_t chs_sectors() const { return std::uint64_t(cylinders) * heads * sectors; }
};
static_assert(sizeof(Footer) == 512);

struct DynamicHeader {
    std::array<char, 8> cookie{};
    be64 data_offset{UINT64_MAX};
    be64 table_offset{};
    be32 version{0x00010000};
    be32 entries{};
    be32 block_size{default_block_bytes};
    be32 checksum{};
    std::array<std::uint8_t, 984> parent{};
};
static_assert(sizeof(DynamicHeader) == 1024);

// One's complement of the sum of all bytes but the checksum's own.
std::uint32_t checksum_of(Footer footer);
std::uint32_t checksum_of(DynamicHeader header);
bool has_cookie(Footer const& footer);
// What the disk's size is: makers differ in whether the geometry or current_size is right.
std::uint64_t disk_bytes(Footer const& footer);
Result<void> validate(Footer const& footer, std::string const& filename);
Result<void> validate(DynamicHeader const& header, std::uint64_t disk_size, std::string const& filename);

struct Geometry {
    std::uint16_t cylinders;
    std::uint8_t heads, sectors;
    std::uint64_t total() const { return std::uint64_t(cylinders) * heads * sectors; }
};
// The appendix's algorithm; rounds down.
Geometry geometry_of(std::uint64_t sectors);

} // namespace vmm::block::vpc
