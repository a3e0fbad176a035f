// AlignedDevice: lets requests of any alignment reach a device that wants sectors (O_DIRECT files, host disks).
#pragma once
#include "block/core/block_device.h"

#include <memory>

namespace vmm::block {

// Wraps `inner` when its limits ask for more than byte alignment, or returns it as it is. Reads are bounced; unaligned
// writes read, modify and write back the sectors they touch, and writes that touch the same sector wait for each other.
// Capabilities are those of `inner`, with write_zeroes and discard made byte-granular.
std::unique_ptr<BlockDevice> align_requests(std::unique_ptr<BlockDevice> inner);

} // namespace vmm::block
