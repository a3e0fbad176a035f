// Partition tables: MBR with extended partitions, and GPT.
#pragma once
#include "block/core/block_device.h"

#include <string>
#include <vector>

namespace vmm::block {

struct Partition {
    unsigned number = 0; // as Linux counts: 1-4 primary, 5... logical
    std::uint64_t offset = 0, length = 0;
    std::string type; // "0x83", or the GPT type GUID
};

// The partitions of `disk`, by number; empty when there is no table. Entries that reach beyond the disk are cut or left
// out; at most 128 (256 links of extended partitions are followed).
Task<Result<std::vector<Partition>>> read_partitions(BlockDevice& disk);

} // namespace vmm::block
