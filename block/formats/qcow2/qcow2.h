// The qcow2 format: registration.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

// Versions 2 and 3 of the qcow2 specification.
Format qcow2_format();

} // namespace vmm::block
