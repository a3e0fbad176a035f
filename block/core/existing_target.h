// What `create` does where nothing can be created: an NBD export or a host device is there already and keeps its size.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

// The options such a protocol takes at `create`.
std::span<OptionSpec const> existing_target_options();

// Opens `filename` by the protocol of that name, sees that it has room for `size` bytes and wipes its first sector, so
// that what it held before is not probed. "Protocol driver 'nbd' does not support image creation, and opening the image
// failed: ..." or the device's own reason for not growing.
Task<Result<void>> claim_existing_target(BlockContext& context, std::string protocol, std::string filename,
                                         std::uint64_t size, OptionValues options);

} // namespace vmm::block
