// `vmm doctor`: what this host offers a virtual machine, on one screen, with what to do about each lack.
#pragma once
#include "vmm/kvm/kvm_api.h"
#include "vmm/kvm/kvm_host.h"

#include <functional>
#include <string>

namespace vmm {

// The host as the doctor sees it; a test gives its own.
struct DoctorHost {
    kvm::KvmApi& kvm;
    kvm::HostFacts facts;
    std::function<bool(std::string const& path)> exists;
    std::function<bool(std::string const& path)> writable;
};
// The host itself. `kvm` outlives it.
DoctorHost doctor_host(kvm::KvmApi& kvm);

// The whole text: a line for each matter ("ok", "no" or "--": not there and not needed), with a remedy where there is
// one.
std::string examine(DoctorHost const& host);

} // namespace vmm
