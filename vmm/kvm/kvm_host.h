// What this host offers for running guests on KVM, and, where it does not, why and what to do.
#pragma once
#include "vmm/base/result.h"
#include "vmm/kvm/kvm_api.h"

#include <string>

namespace vmm::kvm {

inline constexpr char device_path[] = "/dev/kvm";

// What is looked at; a plain struct so that a test can pretend any host.
struct HostFacts {
    bool x86 = true;             // the host architecture can run x86 guests on KVM
    bool virtualization = false; // vmx or svm in CPUID
    bool intel = true;           // which module it would be
    bool device_exists = true;
    std::string user;           // for the usermod hint
    std::string group;          // the device's group, when it has one to join
    bool group_may_open = true; // the device is open to its group
};
HostFacts look_at_host();

// Opens /dev/kvm and checks the API version. The error's message is QEMU's first line followed by the reason and the
// remedy: permission, missing module, missing CPU feature and foreign architecture each have their own.
Result<int> open_device(KvmApi& api, HostFacts const& host);
// The message for a device that would not open with `errno_value`.
Error explain_open_failure(int errno_value, HostFacts const& host);

// Whether KVM should be chosen when the user did not say: the device opens and the CPU helps (a KVM without vmx or svm
// beneath emulates every instruction). `why` gets the reason in one line either way.
bool prefer_kvm(KvmApi& api, HostFacts const& host, std::string& why);

} // namespace vmm::kvm
