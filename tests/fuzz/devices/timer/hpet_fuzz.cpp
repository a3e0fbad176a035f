#include "tests/support/device_fuzz.h"
#include "tests/support/rigs/timer_rigs.h"

VMM_FUZZ_DEVICE(vmm::test::HpetConformanceRig)
