// The VHDX log ([MS-VHDX] 2.3): metadata writes that may not have reached their place. We apply them in memory only.
#pragma once
#include "block/core/block_device.h"
#include "block/formats/vhdx/header.h"

#include <memory>
#include <vector>

namespace vmm::block::vhdx {

// Bytes that replace what the file holds.
struct Patch {
    std::uint64_t offset = 0, length = 0;
    std::vector<std::uint8_t> bytes; // `length` of them, or none: zeroes
};

// The writes of the active sequence of `log` (the whole log region), oldest first; empty when the log holds none of
// this id. Entries with wrong checksums, foreign ids or impossible lengths end a sequence.
Result<std::vector<Patch>> replay_log(ConstBytes log, Guid const& id, std::string const& filename);

// `file` as if the patches had been written to it. Read only.
std::unique_ptr<BlockDevice> patched_file(std::unique_ptr<BlockDevice> file, std::vector<Patch> patches);

} // namespace vmm::block::vhdx
