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

TEST(CpuModel, who_runs_on_the_hosts_cpu_sees_its_vendor) {
    std::vector<std::string> warnings;
    auto on_host = [&](char const* name) {
        return make_cpu_model(name, everything(), warnings, CpuIdentity::host).value();
    };
    CpuModel const host = model("host");
    for (char const* name : {"qemu64", "kvm64", "max"}) EXPECT_EQ(on_host(name).vendor, host.vendor) << name;
    EXPECT_EQ(on_host("max").signature(), host.signature());
    EXPECT_EQ(on_host("qemu64").signature(), model("qemu64").signature());
    EXPECT_NE(model("max").brand, on_host("max").brand);
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

TEST(Cpuid, apic_ids_leave_gaps_where_a_count_is_no_power_of_two) {
    EXPECT_EQ(topology_apic_id(3, 2, 2), 3u);
    EXPECT_EQ(topology_apic_id(3, 3, 1), 4u); // second socket
    EXPECT_EQ(topology_apic_id(7, 3, 2), 9u); // second socket's first core, second thread
    EXPECT_EQ(topology_apic_id(5, 1, 1), 5u);
}

TEST(Cpuid, leaf_11_counts_threads_and_cores) {
    CpuidContext c{.apic_id = 5, .threads = 2, .cores = 3};
    CpuModel m = model("x86-64-v3");
    CpuidResult thread = cpuid(m, c, 0xb, 0), core = cpuid(m, c, 0xb, 1), end = cpuid(m, c, 0xb, 2);
    EXPECT_EQ(thread.eax, 1u);
    EXPECT_EQ(thread.ebx, 2u);
    EXPECT_EQ(core.eax, 3u);
    EXPECT_EQ(core.ebx, 6u);
    EXPECT_EQ(core.edx, 5u);
    EXPECT_EQ(end.ecx >> 8, 0u);
    EXPECT_EQ(cpuid(m, c, 1, 0).ebx >> 16, 0x0506u);
    EXPECT_EQ(cpuid(m, c, 4, 0).eax >> 14 & 0xfff, 1u); // L1: the threads of a core
    EXPECT_EQ(cpuid(m, c, 4, 0).eax >> 26, 3u);         // core ids set aside, less one
}

TEST(Cpuid, amd_models_tell_cores_and_threads_in_their_own_leaves) {
    CpuidContext c{.apic_id = 7, .threads = 2, .cores = 2};
    CpuModel m = model("max");
    EXPECT_EQ(cpuid(m, c, 0x80000000, 0).eax, 0x8000001eu);
    EXPECT_EQ(cpuid(m, c, 0x80000008, 0).ecx, 0x2003u);
    EXPECT_TRUE(cpuid(m, c, 0x80000001, 0).ecx & 2);
    CpuidResult place = cpuid(m, c, 0x8000001e, 0);
    EXPECT_EQ(place.eax, 7u);
    EXPECT_EQ(place.ebx, 0x101u);
    EXPECT_EQ(place.ecx, 1u);
    EXPECT_EQ(cpuid(m, c, 0x8000001d, 3).eax >> 14 & 0xfff, 3u);
    EXPECT_EQ(cpuid(model("qemu64"), c, 0x80000000, 0).eax, 0x80000008u);
    EXPECT_FALSE(cpuid(m, {}, 0x80000001, 0).ecx & 2);
}
