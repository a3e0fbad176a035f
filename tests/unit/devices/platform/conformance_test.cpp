// The conformance suite over devices/platform.
#include "tests/support/rigs/platform_rigs.h"

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(Port92, DeviceConformance, Port92Rig);
INSTANTIATE_TYPED_TEST_SUITE_P(PostPort, DeviceConformance, PostPortRig);
INSTANTIATE_TYPED_TEST_SUITE_P(AcpiPm, DeviceConformance, AcpiPmRig);
INSTANTIATE_TYPED_TEST_SUITE_P(PcTestdev, DeviceConformance, PcTestdevRig);
INSTANTIATE_TYPED_TEST_SUITE_P(FwCfg, DeviceConformance, FwCfgRig);
} // namespace vmm::test
