#include "tests/support/rigs/timer_rigs.h"

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(I8254, DeviceConformance, PitConformanceRig);
INSTANTIATE_TYPED_TEST_SUITE_P(SpeakerGate, DeviceConformance, SpeakerGateConformanceRig);
INSTANTIATE_TYPED_TEST_SUITE_P(Mc146818, DeviceConformance, RtcConformanceRig);
INSTANTIATE_TYPED_TEST_SUITE_P(Hpet, DeviceConformance, HpetConformanceRig);
} // namespace vmm::test
