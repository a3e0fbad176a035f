#include "vmm/kvm/kvm_api.h"

#include "vmm/kvm/kvm_abi.h"

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
    int run_kicked(int vcpu_fd) override {
        sigset_t kicks, before;
        sigemptyset(&kicks), sigaddset(&kicks, kick_signal);
        pthread_sigmask(SIG_BLOCK, &kicks, &before);
        kick(gettid());
        abi::SignalMask mask;
        int result = ioctl(vcpu_fd, abi::set_signal_mask, reinterpret_cast<std::uintptr_t>(&mask));
        if (result >= 0) {
            result = ioctl(vcpu_fd, KVM_RUN, 0);
            int restored = ioctl(vcpu_fd, abi::set_signal_mask, 0);
            if (restored < 0) result = restored;
        }
        timespec const now{};
        sigtimedwait(&kicks, nullptr, &now);
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return result;
    }
};

} // namespace

std::unique_ptr<KvmApi> make_system_kvm_api() { return std::make_unique<SystemKvmApi>(); }

Error kvm_error(char const* call, int result) { return error_from_errno(-result, "KVM failed: {}", call); }

} // namespace vmm::kvm
