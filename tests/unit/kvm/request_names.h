// The requests that the KVM engine and its boards make of the kernel, and where the source makes them: so that a test
// notices a request that no other test lets fail.
#pragma once
#include "vmm/kvm/kvm_abi.h"

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace vmm::kvm {

struct RequestName {
    std::string_view name;
    unsigned long request;
};
inline constexpr RequestName request_names[] = {
    {"KVM_CHECK_EXTENSION", KVM_CHECK_EXTENSION},
    {"KVM_CREATE_IRQCHIP", KVM_CREATE_IRQCHIP},
    {"KVM_CREATE_VCPU", KVM_CREATE_VCPU},
    {"KVM_CREATE_VM", KVM_CREATE_VM},
    {"KVM_ENABLE_CAP", KVM_ENABLE_CAP},
    {"KVM_GET_API_VERSION", KVM_GET_API_VERSION},
    {"KVM_GET_CLOCK", KVM_GET_CLOCK},
    {"KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS},
    {"KVM_GET_DEVICE_ATTR", KVM_GET_DEVICE_ATTR},
    {"KVM_GET_DIRTY_LOG", KVM_GET_DIRTY_LOG},
    {"KVM_GET_IRQCHIP", KVM_GET_IRQCHIP},
    {"KVM_GET_LAPIC", KVM_GET_LAPIC},
    {"KVM_GET_MP_STATE", KVM_GET_MP_STATE},
    {"KVM_GET_NESTED_STATE", KVM_GET_NESTED_STATE},
    {"KVM_GET_REGS", KVM_GET_REGS},
    {"KVM_GET_SREGS", KVM_GET_SREGS},
    {"KVM_GET_TSC_KHZ", KVM_GET_TSC_KHZ},
    {"KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS},
    {"KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE},
    {"KVM_GET_XCRS", KVM_GET_XCRS},
    {"KVM_INTERRUPT", KVM_INTERRUPT},
    {"KVM_IOEVENTFD", KVM_IOEVENTFD},
    {"KVM_IRQFD", KVM_IRQFD},
    {"KVM_IRQ_LINE", KVM_IRQ_LINE},
    {"KVM_NMI", KVM_NMI},
    {"KVM_REGISTER_COALESCED_MMIO", KVM_REGISTER_COALESCED_MMIO},
    {"KVM_RESET_DIRTY_RINGS", KVM_RESET_DIRTY_RINGS},
    {"KVM_RUN", KVM_RUN},
    {"KVM_SET_CLOCK", KVM_SET_CLOCK},
    {"KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS},
    {"KVM_SET_DEVICE_ATTR", KVM_SET_DEVICE_ATTR},
    {"KVM_SET_GUEST_DEBUG", KVM_SET_GUEST_DEBUG},
    {"KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR},
    {"KVM_SET_IRQCHIP", KVM_SET_IRQCHIP},
    {"KVM_SET_LAPIC", KVM_SET_LAPIC},
    {"KVM_SET_MP_STATE", KVM_SET_MP_STATE},
    {"KVM_SET_NESTED_STATE", KVM_SET_NESTED_STATE},
    {"KVM_SET_REGS", KVM_SET_REGS},
    {"KVM_SET_SREGS", KVM_SET_SREGS},
    {"KVM_SET_TSC_KHZ", KVM_SET_TSC_KHZ},
    {"KVM_SET_TSS_ADDR", KVM_SET_TSS_ADDR},
    {"KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION},
    {"KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS},
    {"KVM_SET_XCRS", KVM_SET_XCRS},
    {"KVM_SIGNAL_MSI", KVM_SIGNAL_MSI},
    {"KVM_SMI", KVM_SMI},
    {"KVM_TRANSLATE", KVM_TRANSLATE},
    {"KVM_X86_SETUP_MCE", KVM_X86_SETUP_MCE},
    {"abi::get_msr_index_list", abi::get_msr_index_list},
    {"abi::get_msrs", abi::get_msrs},
    {"abi::get_supported_cpuid", abi::get_supported_cpuid},
    {"abi::get_xsave", abi::get_xsave},
    {"abi::set_cpuid2", abi::set_cpuid2},
    {"abi::set_gsi_routing", abi::set_gsi_routing},
    {"abi::set_msrs", abi::set_msrs},
    {"abi::set_signal_mask", abi::set_signal_mask},
    {"abi::set_xsave", abi::set_xsave},
};

// Those named in calls of the .cpp and .h files below `folder`, as written there.
inline std::set<std::string> requests_in_source(std::filesystem::path const& folder) {
    std::regex const call(R"(\b(ioctl|call|vm_call|transfer_msrs)\()"),
        name(R"re((^|[^"A-Za-z0-9_])(KVM_[A-Z0-9_]+|abi::[a-z][a-z0-9_]+))re");
    std::set<std::string> found;
    for (auto const& entry : std::filesystem::recursive_directory_iterator(folder)) {
        if (entry.path().extension() != ".cpp" && entry.path().extension() != ".h") continue;
        std::stringstream buffer;
        buffer << std::ifstream(entry.path()).rdbuf();
        std::string const text = buffer.str();
        for (std::sregex_iterator at(text.begin(), text.end(), call), end; at != end; ++at) {
            auto from = std::size_t(at->position());
            std::string const statement = text.substr(from, text.find(';', from) - from);
            for (std::sregex_iterator in(statement.begin(), statement.end(), name); in != end; ++in)
                found.insert((*in)[2]);
        }
    }
    return found;
}

} // namespace vmm::kvm
