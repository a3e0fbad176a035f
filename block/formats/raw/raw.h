// The raw format: the file is the disk.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format raw_format();

} // namespace vmm::block
