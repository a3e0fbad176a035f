// Headers of sparse extents as they lie in the file (VMware "Virtual Disk Format 5.0"), and the limits we accept.
#pragma once
#include "vmm/base/endian.h"

#include <array>
#include <string_view>

namespace vmm::block::vmdk {

inline constexpr std::uint32_t sector_bytes = 512;
inline constexpr std::string_view sparse_magic = "KDMV", cowd_magic = "COWD";
inline constexpr std::uint64_t gd_at_end = UINT64_MAX; // the directory's place is in the footer
inline constexpr std::uint32_t flag_newline_test = 1, flag_redundant_tables = 2, flag_zeroed_grain = 4,
                               flag_compressed = 1u << 16, flag_markers = 1u << 17;
inline constexpr std::uint32_t gte_zeroed = 1; // with flag_zeroed_grain: the grain reads as zero

// Named maxima of hostile input.
inline constexpr std::uint64_t max_grain_sectors = 32768; // 16 MiB
inline constexpr std::uint64_t max_directory_entries = 1u << 22;
inline constexpr std::uint64_t max_descriptor_bytes = 1u << 20;
inline constexpr std::size_t max_extents = 4096;
inline constexpr std::uint64_t max_disk_sectors = INT64_MAX / sector_bytes;

// "Hosted sparse extent". Offsets and sizes in sectors.
struct SparseHeader {
    std::array<char, 4> magic{'K', 'D', 'M', 'V'};
    le32 version{1};
    le32 flags{};
    le64 capacity{};
    le64 grain_size{128};
    le64 descriptor_offset{};
    le64 descriptor_size{};
    le32 entries_per_table{512};
    le64 redundant_directory{};
    le64 directory{};
    le64 overhead{};
    std::uint8_t unclean = 0;
    std::array<char, 4> newline_test{'\n', ' ', '\r', '\n'};
    le16 compression{}; // 1: deflate
    std::array<std::uint8_t, 433> padding{};
};
static_assert(sizeof(SparseHeader) == 512);

// "ESX Server sparse extent".
struct CowdHeader {
    std::array<char, 4> magic{'C', 'O', 'W', 'D'};
    le32 version{1};
    le32 flags{3};
    le32 capacity{};
    le32 grain_size{1};
    le32 directory{4};
    le32 directory_entries{};
    le32 free_sector{};
};
inline constexpr std::uint32_t cowd_entries_per_table = 4096;

// Before each grain of a stream.
struct GrainMarker {
    le64 sector{};
    le32 size{}; // of the compressed data behind it; 0: a special marker
};
static_assert(sizeof(GrainMarker) == 12);

} // namespace vmm::block::vmdk
