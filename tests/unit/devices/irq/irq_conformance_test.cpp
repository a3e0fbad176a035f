#include "tests/support/rigs/irq_rigs.h"

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(I8259, DeviceConformance, PicConformanceRig);
INSTANTIATE_TYPED_TEST_SUITE_P(IoApic, DeviceConformance, IoApicConformanceRig);
INSTANTIATE_TYPED_TEST_SUITE_P(LocalApic, DeviceConformance, LocalApicConformanceRig);
} // namespace vmm::test
