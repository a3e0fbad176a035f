// The first version of the qcow format.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format qcow_format();

} // namespace vmm::block
