// The conformance suite over devices/serial.
#include "tests/support/rigs/serial_rigs.h"

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(Uart, DeviceConformance, UartRig);
} // namespace vmm::test
