// The canary: devices with one planted mistake each. The conformance suite must see every one of them.
#include "tests/support/device_conformance.h"

using namespace vmm;
using namespace vmm::test;

namespace {
enum class Mistake { none, forgotten_field, no_validation, half_reset, dead, clobbers_on_refusal };

struct CanaryState {
    std::uint8_t a = 0, b = 0;
    bool save_b = true;
};
template <class V> void fields(V& v, CanaryState& s) {
    v.field("a", s.a);
    if (s.save_b) v.field("b", s.b);
}

// Two registers of four bits.
template <Mistake mistake> struct Canary final : IoHandler, dev::Resettable, dev::Snapshottable {
    CanaryState state{.save_b = mistake != Mistake::forgotten_field};
    std::uint64_t read(std::uint64_t offset, unsigned) override { return offset == 0 ? state.a : state.b; }
    void write(std::uint64_t offset, unsigned, std::uint64_t value) override {
        if (mistake != Mistake::dead) (offset == 0 ? state.a : state.b) = value & 15;
    }
    void reset() override {
        state.a = 0;
        if (mistake == Mistake::half_reset)
            ++state.b;
        else
            state.b = 0;
    }
    void save(StateWriter& to) const override { save_state(to, state); }
    Result<void> load(StateReader& from) override {
        CanaryState loaded = state;
        fields(from, loaded);
        if (mistake == Mistake::clobbers_on_refusal) state = CanaryState{};
        TRY(from.finish());
        bool valid = loaded.a < 16 && loaded.b < 16;
        if (mistake == Mistake::no_validation) valid = state.a < 16; // looks at the wrong state
        if (!valid) return error("a canary register has four bits");
        state = loaded;
        return {};
    }
};
template <Mistake mistake> struct CanaryRig {
    FakeClock clock;
    TimerQueue timers{clock};
    Canary<mistake> canary;
    dev::Resettable& resettable() { return canary; }
    dev::Snapshottable& snapshottable() { return canary; }
    std::vector<IoWindow> windows() { return {{&canary, 2, 1}}; }
};
} // namespace

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(HealthyCanary, DeviceConformance, CanaryRig<Mistake::none>);
}

TEST(DeviceConformance, sees_a_field_that_is_not_saved) {
    EXPECT_NE(conformance::a_loaded_twin_behaves_the_same<CanaryRig<Mistake::forgotten_field>>(), "");
}
TEST(DeviceConformance, sees_a_state_that_is_not_validated) {
    EXPECT_NE(conformance::damaged_states_are_refused_or_valid<CanaryRig<Mistake::no_validation>>(), "");
}
TEST(DeviceConformance, sees_a_reset_that_is_not_one) {
    EXPECT_NE(conformance::reset_is_idempotent<CanaryRig<Mistake::half_reset>>(), "");
}
TEST(DeviceConformance, sees_a_device_whose_state_never_changes) {
    EXPECT_NE(conformance::load_brings_back_what_was_saved<CanaryRig<Mistake::dead>>(), "");
}
TEST(DeviceConformance, sees_a_refused_load_that_changes_the_device) {
    EXPECT_NE(conformance::damaged_states_are_refused_or_valid<CanaryRig<Mistake::clobbers_on_refusal>>(), "");
}
