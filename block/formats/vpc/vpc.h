// The VHD format of Virtual PC and Hyper-V, which QEMU calls vpc: dynamic and fixed disks.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format vpc_format();

} // namespace vmm::block
