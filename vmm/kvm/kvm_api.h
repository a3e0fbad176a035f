// KvmApi: the system calls the KVM engine makes, as an interface, so that a test can make each of them fail.
#pragma once
#include "vmm/base/error.h"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace vmm::kvm {

// Any thread. Every call returns what the system call returned, or -errno.
class KvmApi {
public:
    virtual ~KvmApi() = default;
    // Opens the device (read-write, close-on-exec).
    virtual int open(char const* path) = 0;
    // `argument` is a pointer or a number, as the request wants it.
    virtual int ioctl(int fd, unsigned long request, std::uintptr_t argument) = 0;
    // Shared, read-write mapping; null and errno in `error` on failure.
    virtual void* map(int fd, std::size_t size, std::size_t offset, int& error) = 0;
    virtual void unmap(void* address, std::size_t size) = 0;
    // Sends the kick signal to a thread of this process.
    virtual void kick(int thread_id) = 0;
    // KVM_RUN that ends before the first guest instruction because a kick waits, but after the kernel has done what it
    // does at an entry: what became due is in registers and the local APIC then. -EINTR when all went well.
    int run_kicked(int vcpu_fd);
    // Returns once every kernel timer that was due has gone off, on whichever host CPU it sits.
    virtual void let_timers_run() = 0;

    template <class T> int ioctl(int fd, unsigned long request, T* argument) {
        return ioctl(fd, request, reinterpret_cast<std::uintptr_t>(argument));
    }
};

// The real one. Installs a do-nothing handler for the kick signal (SIGUSR1), whose only use is to interrupt KVM_RUN.
std::unique_ptr<KvmApi> make_system_kvm_api();

// "KVM_CREATE_VM: Cannot allocate memory" for a call that returned `result` (< 0).
Error kvm_error(char const* call, int result);

} // namespace vmm::kvm
