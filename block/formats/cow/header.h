// The three headers a cow file may have, decoded. Magic "OOOM" (big-endian); version 1 was written in the host's byte
// order and so begins with "MOOO" on a PC.
#pragma once
#include "block/core/io_spans.h"
#include "vmm/base/result.h"

#include <string>

namespace vmm::block::cow {

inline constexpr std::size_t max_header_bytes = 4128;
inline constexpr std::uint64_t max_bitmap_bytes = 256u << 20; // a disk of 1 TiB

struct Layout {
    std::string backing;
    std::uint64_t size = 0;          // of the disk
    std::uint64_t bitmap_offset = 0; // a bit a sector, lowest bit first
    std::uint64_t data_offset = 0;   // sector n lies at data_offset + n * 512
};

bool is_cow(ConstBytes header);
// `header`: the first max_header_bytes of the file, or all of it. Errors name the field.
Result<Layout> decode(ConstBytes header, std::string const& filename);

} // namespace vmm::block::cow
