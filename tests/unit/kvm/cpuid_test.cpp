// CPUID: models cut to what KVM supports, and KVM's own leaves.
#include "fixture.h"
#include "vmm/kvm/kvm_cpuid.h"

#include <algorithm>

namespace vmm::kvm {

namespace {
kvm_cpuid_entry2 leaf(std::uint32_t function, std::uint32_t index = 0) {
    kvm_cpuid_entry2 e{};
    e.function = function, e.index = index;
    return e;
}
} // namespace

TEST(KvmCpuid, a_feature_kvm_lacks_is_dropped_with_a_warning_naming_it) {
    auto one = leaf(1);
    one.ecx = 1u << 9 | 1u, one.edx = ~0u; // SSSE3, SSE3
    auto ext = leaf(0x80000001);
    ext.edx = 1u << 29 | 1u << 11;
    std::vector<kvm_cpuid_entry2> supported{one, ext};
    auto features = features_of(supported, KernelIrqchip::off, true);
    std::vector<std::string> warnings;
    auto model = x86::make_cpu_model("qemu64,+ssse3,+avx2", features, warnings);
    ASSERT_TRUE(model);
    EXPECT_TRUE(model->has(x86::Feature::ssse3));
    EXPECT_FALSE(model->has(x86::Feature::avx2));
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find("avx2"), std::string::npos);
}

TEST(KvmCpuid, the_tsc_deadline_timer_needs_a_kernel_apic) {
    auto one = leaf(1);
    std::vector<kvm_cpuid_entry2> supported{one};
    auto bit = [](x86::FeatureSet const& f) { return f[std::size_t(x86::FeatureWord::l1_ecx)] >> 24 & 1; };
    EXPECT_FALSE(bit(features_of(supported, KernelIrqchip::off, true)));
    EXPECT_TRUE(bit(features_of(supported, KernelIrqchip::on, true)));
    EXPECT_FALSE(bit(features_of(supported, KernelIrqchip::on, false)));
}

TEST(KvmCpuid, a_guest_with_svm_is_told_what_kvm_offers_its_guests) {
    std::vector<std::string> warnings;
    auto svm = leaf(0x8000000a);
    svm.eax = 1, svm.ebx = 8, svm.edx = 9;
    std::vector<kvm_cpuid_entry2> supported{svm};
    for (bool has : {false, true}) {
        auto model = x86::make_cpu_model("x86-64-v2", x86::host_features(), warnings).value();
        model.set(x86::Feature::svm, has);
        auto table = make_cpuid(model, {}, supported, KernelIrqchip::on);
        auto found = std::ranges::find(table, 0x8000000au, &kvm_cpuid_entry2::function);
        ASSERT_EQ(found != table.end(), has);
        if (!has) continue;
        EXPECT_EQ(found->ebx, 8u);
        EXPECT_GE(std::ranges::find(table, 0x80000000u, &kvm_cpuid_entry2::function)->eax, 0x8000000au);
    }
}

TEST(KvmCpuid, the_table_has_kvms_signature_and_only_leaves_the_model_lists) {
    std::vector<std::string> warnings;
    auto model = x86::make_cpu_model("x86-64-v2", x86::host_features(), warnings).value();
    model.set(x86::Feature::hypervisor, true);
    auto pv = leaf(0x40000001);
    pv.eax = ~0u;
    std::vector<kvm_cpuid_entry2> supported{pv};
    auto table = make_cpuid(model, {.apic_id = 3}, supported, KernelIrqchip::off);
    bool signature = false;
    for (auto const& e : table) {
        if (e.function == 0x40000000) {
            signature = true;
            EXPECT_EQ(std::memcmp(&e.ebx, "KVMK", 4), 0);
            EXPECT_EQ(std::memcmp(&e.ecx, "VMKV", 4), 0);
        }
        if (e.function == 0x40000001) {
            EXPECT_EQ(e.eax & (1u << 6), 0u) << "PV EOI needs a kernel APIC";
            EXPECT_EQ(e.eax & (1u << 7 | 1u << 11), 0u) << "hypercalls are undefined instructions on other engines";
            EXPECT_EQ(e.eax & (1u << 4 | 1u << 5 | 1u << 9), 0u) << "what only KVM can keep up";
        } else if (e.function == 1) {
            EXPECT_EQ(e.ebx >> 24, 3u);
        }
        EXPECT_TRUE(e.function <= 0xd || e.function >= 0x40000000) << e.function;
    }
    EXPECT_TRUE(signature);
}

} // namespace vmm::kvm
