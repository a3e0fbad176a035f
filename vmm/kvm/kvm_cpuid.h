// CPUID between KVM and the CPU models.
#pragma once
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/kvm/kvm_machine.h"

#include <linux/kvm.h>

#include <span>
#include <vector>

namespace vmm::kvm {

// The features KVM can give a guest, from KVM_GET_SUPPORTED_CPUID, in the words of the CPU models.
x86::FeatureSet features_of(std::span<kvm_cpuid_entry2 const> supported, KernelIrqchip irqchip, bool tsc_deadline);

// The table for KVM_SET_CPUID2: the model's leaves, KVM's own at 0x40000000. KVM itself keeps OSXSAVE, OSPKE, the APIC
// bit and the XSAVE sizes current.
std::vector<kvm_cpuid_entry2> make_cpuid(x86::CpuModel const& model, x86::CpuidContext const& context,
                                         std::span<kvm_cpuid_entry2 const> supported, KernelIrqchip irqchip);

} // namespace vmm::kvm
