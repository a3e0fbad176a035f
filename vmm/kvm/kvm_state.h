// x86::State to and from KVM's register structures. Pure conversions; the calls are in KvmVcpu.
#pragma once
#include "vmm/cpu/x86/state.h"
#include "vmm/kvm/kvm_abi.h"

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <span>

namespace vmm::kvm {

void to_kvm(x86::State const& s, kvm_regs& r);
void from_kvm(kvm_regs const& r, x86::State& s);
// apic_base and cr8 belong to the board's local APIC; a pending external interrupt goes by kvm_vcpu_events.
void to_kvm(x86::State const& s, kvm_sregs& r);
void from_kvm(kvm_sregs const& r, x86::State& s);
void to_kvm(x86::State const& s, kvm_debugregs& r);
void from_kvm(kvm_debugregs const& r, x86::State& s);
// `offered`: those of KVM_VCPUEVENT_VALID_SMM and KVM_VCPUEVENT_VALID_TRIPLE_FAULT that this host's KVM takes. A triple
// fault that KVM has found and not reported yet is a CPU that has shut down.
void to_kvm(x86::State const& s, kvm_vcpu_events& e, std::uint32_t offered);
void from_kvm(kvm_vcpu_events const& e, x86::State& s);
void to_kvm(x86::State const& s, kvm_xcrs& x);
void from_kvm(kvm_xcrs const& x, x86::State& s);

// Where the host's XSAVE puts each component (CPUID leaf 0DH); KVM_GET_XSAVE has the host's layout.
struct XsaveLayout {
    std::array<std::uint32_t, 10> offset{}, size{};
    std::uint64_t components = 3;
    static XsaveLayout of_host();
};
void to_kvm(x86::State const& s, abi::Xsave& x, XsaveLayout const& layout);
void from_kvm(abi::Xsave const& x, x86::State& s, XsaveLayout const& layout);

// The MSRs of the state: their numbers and places.
struct StateMsr {
    std::uint32_t index;
    std::uint64_t x86::State::*place;
};
std::span<StateMsr const> state_msrs();
// MTRRs and machine check banks, which are arrays in the state: index of the n-th and a pointer to its value.
struct ArrayMsr {
    std::uint32_t index;
    std::uint64_t* value;
};
// Fills `out` with those, for `variable` MTRR pairs and `banks` machine check banks; returns how many.
std::size_t array_msrs(x86::State& s, unsigned banks, std::span<ArrayMsr> out);
inline constexpr std::size_t max_array_msrs = 1 + 16 + 11 + 40;

} // namespace vmm::kvm
