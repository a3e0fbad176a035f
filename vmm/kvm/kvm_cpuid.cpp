#include "vmm/kvm/kvm_cpuid.h"

#include <asm/kvm_para.h>

#include <algorithm>
#include <cstring>

namespace vmm::kvm {

namespace {

using x86::FeatureWord;

kvm_cpuid_entry2 const* find(std::span<kvm_cpuid_entry2 const> list, std::uint32_t leaf, std::uint32_t subleaf) {
    for (kvm_cpuid_entry2 const& e : list)
        if (e.function == leaf && e.index == subleaf) return &e;
    return nullptr;
}

// Leaves whose answer depends on ECX, and how many subleaves to list.
struct Indexed {
    std::uint32_t leaf, count;
};
constexpr Indexed indexed[] = {{4, 5}, {7, 2}, {0xb, 3}, {0xd, 64}, {0x8000001d, 5}};

// Paravirtual features, of those that a guest can go on using when another engine takes it over: none with hypercalls,
// which are undefined instructions there (KVM_FEATURE_PV_UNHALT, _PV_SEND_IPI), none with a promise that only KVM keeps
// (_STEAL_TIME and _PV_TLB_FLUSH: to flush for a CPU that is marked preempted; _ASYNC_PF: to tell that a page has
// come).
constexpr std::uint32_t pv_without_apic = 1u << KVM_FEATURE_CLOCKSOURCE | 1u << KVM_FEATURE_NOP_IO_DELAY |
                                          1u << KVM_FEATURE_CLOCKSOURCE2 | 1u << KVM_FEATURE_CLOCKSOURCE_STABLE_BIT;
constexpr std::uint32_t pv_with_apic = pv_without_apic | 1u << KVM_FEATURE_PV_EOI;
constexpr std::uint32_t svm_leaf = 0x8000000a;

// What a guest needs to know to run guests of its own (APM vol. 3, Fn8000_000A); the leaves before it are there.
void add_svm_leaf(std::vector<kvm_cpuid_entry2>& list, kvm_cpuid_entry2 const& supported) {
    std::erase_if(list, [](kvm_cpuid_entry2 const& e) { return e.function == svm_leaf; });
    list.push_back(supported);
    for (kvm_cpuid_entry2& e : list)
        if (e.function == 0x80000000) e.eax = std::max(e.eax, svm_leaf);
}

} // namespace

x86::FeatureSet features_of(std::span<kvm_cpuid_entry2 const> supported, KernelIrqchip irqchip, bool tsc_deadline) {
    x86::FeatureSet set{};
    auto word = [&](FeatureWord w) -> std::uint32_t& { return set[std::size_t(w)]; };
    if (auto* e = find(supported, 1, 0)) word(FeatureWord::l1_edx) = e->edx, word(FeatureWord::l1_ecx) = e->ecx;
    if (auto* e = find(supported, 6, 0)) word(FeatureWord::l6_eax) = e->eax;
    if (auto* e = find(supported, 7, 0))
        word(FeatureWord::l7_ebx) = e->ebx, word(FeatureWord::l7_ecx) = e->ecx, word(FeatureWord::l7_edx) = e->edx;
    if (auto* e = find(supported, 7, 1)) word(FeatureWord::l7_1_eax) = e->eax;
    if (auto* e = find(supported, 0xd, 1)) word(FeatureWord::ld_1_eax) = e->eax;
    if (auto* e = find(supported, 0x80000001, 0))
        word(FeatureWord::ext_edx) = e->edx, word(FeatureWord::ext_ecx) = e->ecx;
    if (auto* e = find(supported, 0x80000008, 0)) word(FeatureWord::l8_ebx) = e->ebx;
    // What KVM's answer leaves to userspace (KVM API, KVM_GET_SUPPORTED_CPUID).
    constexpr std::uint32_t x2apic_bit = 1u << 21, tsc_deadline_bit = 1u << 24, hypervisor_bit = 1u << 31,
                            ht_bit = 1u << 28;
    std::uint32_t& ecx = word(FeatureWord::l1_ecx);
    ecx |= hypervisor_bit | x2apic_bit;
    word(FeatureWord::l1_edx) |= ht_bit;
    // Without a local APIC in the kernel IA32_TSC_DEADLINE would count the host's ticks against the board's clock.
    ecx = irqchip != KernelIrqchip::off && tsc_deadline ? ecx | tsc_deadline_bit : ecx & ~tsc_deadline_bit;
    return set;
}

std::vector<kvm_cpuid_entry2> make_cpuid(x86::CpuModel const& model, x86::CpuidContext const& context,
                                         std::span<kvm_cpuid_entry2 const> supported, KernelIrqchip irqchip) {
    std::vector<kvm_cpuid_entry2> list;
    auto add = [&](std::uint32_t leaf, std::uint32_t subleaf, bool has_index) {
        x86::CpuidResult r = x86::cpuid(model, context, leaf, subleaf);
        if (has_index && subleaf && !(r.eax | r.ebx | r.ecx | r.edx)) return;
        kvm_cpuid_entry2 e{};
        e.function = leaf, e.index = subleaf;
        e.flags = has_index ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
        e.eax = r.eax, e.ebx = r.ebx, e.ecx = r.ecx, e.edx = r.edx;
        list.push_back(e);
    };
    auto add_range = [&](std::uint32_t first) {
        std::uint32_t last = x86::cpuid(model, context, first, 0).eax;
        for (std::uint32_t leaf = first; leaf <= last; ++leaf) {
            auto row = std::ranges::find(indexed, leaf, &Indexed::leaf);
            std::uint32_t count = row == std::end(indexed) ? 1 : row->count;
            for (std::uint32_t subleaf = 0; subleaf < count; ++subleaf) add(leaf, subleaf, count > 1);
        }
    };
    add_range(0);
    if (model.has(x86::Feature::hypervisor)) {
        kvm_cpuid_entry2 signature{}, features{};
        signature.function = KVM_CPUID_SIGNATURE;
        signature.eax = KVM_CPUID_FEATURES;
        std::memcpy(&signature.ebx, KVM_SIGNATURE, 4);
        std::memcpy(&signature.ecx, KVM_SIGNATURE + 4, 4);
        std::memcpy(&signature.edx, KVM_SIGNATURE + 8, 4);
        features.function = KVM_CPUID_FEATURES;
        if (auto* e = find(supported, KVM_CPUID_FEATURES, 0))
            features.eax = e->eax & (irqchip == KernelIrqchip::off ? pv_without_apic : pv_with_apic);
        list.push_back(signature);
        list.push_back(features);
    }
    add_range(0x80000000);
    auto* svm = find(supported, svm_leaf, 0);
    if (svm && model.has(x86::Feature::svm)) add_svm_leaf(list, *svm);
    return list;
}

} // namespace vmm::kvm
