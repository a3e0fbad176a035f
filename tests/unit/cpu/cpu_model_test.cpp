#include "vmm/cpu/x86/cpu_model.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::x86;

namespace {
FeatureSet everything() {
    FeatureSet set;
    set.fill(~0u);
    return set;
}
CpuModel model(std::string_view spec) {
    std::vector<std::string> warnings;
    return make_cpu_model(spec, everything(), warnings).value();
}
} // namespace

TEST(CpuModel, features_are_added_and_removed_by_name_and_alias) {
    CpuModel m = model("qemu64,+ssse3,-nx,sse4_2=on");
    EXPECT_TRUE(m.has(Feature::ssse3) && m.has(Feature::sse42));
    EXPECT_FALSE(m.has(Feature::nx));
}

TEST(CpuModel, unknown_names_get_the_nearest_one) {
    std::vector<std::string> warnings;
    EXPECT_EQ(make_cpu_model("qemu46", everything(), warnings).error().message(),
              "unable to find CPU model 'qemu46'; did you mean 'qemu64'?");
    EXPECT_NE(make_cpu_model("max,+avx3", everything(), warnings).error().message().find("did you mean 'avx'"),
              std::string::npos);
}

TEST(CpuModel, what_the_engine_lacks_is_dropped_with_a_warning) {
    std::vector<std::string> warnings;
    FeatureSet none{};
    CpuModel m = make_cpu_model("qemu64,+avx2", none, warnings).value();
    EXPECT_FALSE(m.has(Feature::avx2));
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find("'avx2'"), std::string::npos);
}

TEST(Cpuid, reports_vendor_signature_and_dynamic_bits) {
    CpuModel m = model("x86-64-v3");
    CpuidResult zero = cpuid(m, {}, 0, 0);
    EXPECT_EQ(zero.eax, 0xdu);
    EXPECT_EQ(zero.ebx, 0x756e6547u);
    CpuidContext c;
    EXPECT_FALSE(cpuid(m, c, 1, 0).ecx >> 27 & 1);
    c.osxsave = true;
    c.xcr0 = 7;
    EXPECT_TRUE(cpuid(m, c, 1, 0).ecx >> 27 & 1);
    EXPECT_EQ(cpuid(m, c, 0xd, 0).ebx, 832u);
    EXPECT_EQ(cpuid(m, c, 0x12345, 0).eax, cpuid(m, c, 0xd, 0).eax);
}

TEST(Cpuid, a_model_without_xsave_reports_no_xsave_leaf) {
    EXPECT_EQ(cpuid(model("qemu64"), {}, 0xd, 0).eax, cpuid(model("qemu64"), {}, 0xb, 0).eax);
}
