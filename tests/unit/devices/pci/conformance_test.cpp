// The conformance suite over devices/pci.
#include "tests/support/rigs/pci_rigs.h"

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(I440fx, DeviceConformance, I440fxRig);
INSTANTIATE_TYPED_TEST_SUITE_P(Piix3, DeviceConformance, Piix3Rig);
INSTANTIATE_TYPED_TEST_SUITE_P(ConfigPorts, DeviceConformance, ConfigPortsRig);
INSTANTIATE_TYPED_TEST_SUITE_P(Piix4Pm, DeviceConformance, Piix4PmRig);
INSTANTIATE_TYPED_TEST_SUITE_P(BarDevice, DeviceConformance, BarDeviceRig);
} // namespace vmm::test
