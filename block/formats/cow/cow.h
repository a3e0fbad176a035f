// The copy-on-write format of user-mode Linux, which QEMU had until 2.1: a bitmap of changed sectors over a raw image.
// Read only.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format cow_format();

} // namespace vmm::block
