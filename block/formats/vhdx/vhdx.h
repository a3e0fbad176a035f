// The VHDX format of Hyper-V: dynamic and fixed disks. A log left by a crash is replayed into the file, or in memory
// when the image is read-only.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format vhdx_format();

} // namespace vmm::block
