// The VHDX format of Hyper-V: read only, its log replayed in memory.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format vhdx_format();

} // namespace vmm::block
