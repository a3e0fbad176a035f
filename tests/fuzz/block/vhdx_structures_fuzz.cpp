// The checksummed parts of a VHDX, with checksums put right so that the fields behind them are reached.
#include "block/formats/vhdx/header.h"
#include "block/formats/vhdx/log.h"

#include <algorithm>
#include <vector>

using namespace vmm;
using namespace vmm::block;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size < 1) return 0;
    std::vector<std::uint8_t> bytes(data + 1, data + size);
    switch (data[0] % 3) {
    case 0:
        bytes.resize(vhdx::region_table_bytes);
        store_le<std::uint32_t>(bytes.data() + 4, vhdx::checksum_of(bytes));
        (void)vhdx::parse_regions(bytes, "x").ok();
        break;
    case 1:
        bytes.resize(vhdx::metadata_table_bytes + 4096);
        (void)vhdx::parse_metadata(bytes, "x").ok();
        break;
    case 2: {
        bytes.resize(16 * 4096);
        for (std::size_t at = 0; at < bytes.size(); at += 4096) {
            std::size_t length = std::min<std::size_t>(load_le<std::uint32_t>(&bytes[at + 8]), bytes.size() - at);
            if (length < 64) continue;
            store_le<std::uint32_t>(&bytes[at + 4], vhdx::checksum_of(ConstBytes(bytes).subspan(at, length)));
        }
        (void)vhdx::replay_log(bytes, vhdx::Guid{}, "x").ok();
    }
    }
    return 0;
}
