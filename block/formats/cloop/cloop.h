// The cloop format of Knoppix (compressed loop device, version 2): read only.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format cloop_format();

} // namespace vmm::block
