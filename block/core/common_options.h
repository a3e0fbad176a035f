// The options every driver takes in an option tree: "read-only", "cache.direct", "file.locking", "detect-zeroes", ...
#pragma once
#include "block/core/open_options.h"

namespace vmm::block {

// Moves them from options.tree (of this level, and of "file.") to the fields they stand for. Errors name the option.
Result<void> take_common_options(OpenOptions& options);

} // namespace vmm::block
