// The VDI format of VirtualBox: dynamic and static images.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format vdi_format();

} // namespace vmm::block
