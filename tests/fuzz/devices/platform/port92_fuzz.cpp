#include "tests/support/device_fuzz.h"
#include "tests/support/rigs/platform_rigs.h"

VMM_FUZZ_DEVICE(vmm::test::Port92Rig)
