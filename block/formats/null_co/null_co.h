// The null-co protocol: a disk of any size that swallows writes (benchmarks, tests).
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

// "null-co://" with options size (default 1 GiB) and read-zeroes (default off: reads leave the buffer as it is).
Protocol null_co_protocol();

} // namespace vmm::block
