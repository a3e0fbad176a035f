#include "tests/support/device_fuzz.h"
#include "tests/support/rigs/input_rigs.h"

VMM_FUZZ_DEVICE(vmm::test::I8042Rig)
