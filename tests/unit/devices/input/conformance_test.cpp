// The conformance suite over devices/input.
#include "tests/support/rigs/input_rigs.h"

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(I8042, DeviceConformance, I8042Rig);
} // namespace vmm::test
