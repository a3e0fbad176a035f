// The VDI header as it lies in the file, and the limits we accept.
#pragma once
#include "block/core/io_spans.h"
#include "vmm/base/endian.h"
#include "vmm/base/result.h"

#include <array>

namespace vmm::block::vdi {

inline constexpr std::uint32_t signature = 0xbeda107f;
inline constexpr std::uint32_t version_1_1 = 0x00010001;
inline constexpr std::uint32_t type_dynamic = 1, type_static = 2;
inline constexpr std::uint32_t sector_bytes = 512;
inline constexpr std::uint32_t block_bytes = 1 << 20;   // the only block size in use
inline constexpr std::uint32_t max_blocks = 1u << 27;   // 128 TiB, a block map of 512 MiB
inline constexpr std::uint32_t block_free = 0xffffffff; // never written: reads as zero
inline constexpr std::uint32_t block_zero = 0xfffffffe; // discarded: reads as zero
using Uuid = std::array<std::uint8_t, 16>;

struct Header {
    std::array<char, 64> text{};
    le32 magic{signature};
    le32 version{version_1_1};
    le32 header_size{0x180};
    le32 image_type{type_dynamic};
    le32 flags{};
    std::array<char, 256> description{};
    le32 offset_bmap{0x200};
    le32 offset_data{0x400};
    le32 cylinders{}, heads{}, sectors{};
    le32 sector_size{sector_bytes};
    le32 unused1{};
    le64 disk_size{};
    le32 block_size{block_bytes};
    le32 block_extra{};
    le32 blocks_in_image{};
    le32 blocks_allocated{}; // places used: the next block goes behind them
    Uuid image_id{}, last_snapshot_id{}, link_id{}, parent_id{};
    std::array<std::uint8_t, 56> unused2{};
};
static_assert(sizeof(Header) == 512);

// Everything but what needs the file's size. An error names the field.
Result<void> validate(Header const& header, std::string const& filename);
Uuid random_uuid();

} // namespace vmm::block::vdi
