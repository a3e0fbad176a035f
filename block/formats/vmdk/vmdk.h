// The VMDK format of VMware: one or many files, flat or sparse, streams, children of other images.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format vmdk_format();

} // namespace vmm::block
