// Reading and mapping through a backing chain; shared by every format that has backing files.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/image.h"

namespace vmm::block {

// Reads what an overlay does not have: from `backing`, zeroes past its end, zeroes when it is null.
Task<Result<void>> read_backing(BlockDevice* backing, std::uint64_t offset, IoSpans to);

// The status at `offset` seen through the chain: the first layer that allocates it decides; depth counts layers below
// `top`. Parts no layer allocates are zero (allocated = false, depth of the last layer asked). `base` (exclusive; null:
// whole chain) stops the descent, as `convert -B` and `commit` need.
Task<Result<BlockStatus>> chain_status(Image& top, std::uint64_t offset, std::uint64_t length, Image* base = nullptr);

// Layers in the chain, `top` included.
unsigned chain_depth(Image& top);
// File names from top to bottom.
std::vector<std::string> chain_filenames(Image& top);

} // namespace vmm::block
