#include "vmm/kvm/kvm_api.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace vmm::kvm {

namespace {

constexpr int kick_signal = SIGUSR1;

class SystemKvmApi final : public KvmApi {
public:
    SystemKvmApi() {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        sigaction(kick_signal, &action, nullptr);
    }
    int open(char const* path) override {
        int fd = ::open(path, O_RDWR | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
    }
    int ioctl(int fd, unsigned long request, std::uintptr_t argument) override {
        int result = ::ioctl(fd, request, argument);
        return result < 0 ? -errno : result;
    }
    void* map(int fd, std::size_t size, std::size_t offset, int& error) override {
        void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, off_t(offset));
        if (address != MAP_FAILED) return address;
        error = errno;
        return nullptr;
    }
    void unmap(void* address, std::size_t size) override { ::munmap(address, size); }
    void kick(int thread_id) override { syscall(SYS_tgkill, getpid(), thread_id, kick_signal); }
};

} // namespace

std::unique_ptr<KvmApi> make_system_kvm_api() { return std::make_unique<SystemKvmApi>(); }

Error kvm_error(char const* call, int result) { return error_from_errno(-result, "KVM failed: {}", call); }

} // namespace vmm::kvm
