#include "vmm/kvm/kvm_api.h"

#include "vmm/kvm/kvm_abi.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

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
    // A CPU runs its timers in the order of their ends, so one of ours that ends has seen all earlier ones out. It sits
    // where the thread that starts it runs.
    void let_timers_run() override {
        constexpr timespec moment{.tv_sec = 0, .tv_nsec = 1000};
        cpu_set_t before, all, one;
        if (sched_getaffinity(0, sizeof before, &before) < 0) return;
        std::memset(&all, 0xff, sizeof all); // the kernel cuts it down to what this process may use
        bool known = sched_setaffinity(0, sizeof all, &all) == 0 && sched_getaffinity(0, sizeof all, &all) == 0;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (!CPU_ISSET(cpu, known ? &all : &before)) continue;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            if (sched_setaffinity(0, sizeof one, &one) == 0) clock_nanosleep(CLOCK_MONOTONIC, 0, &moment, nullptr);
        }
        sched_setaffinity(0, sizeof before, &before);
    }
};

} // namespace

std::unique_ptr<KvmApi> make_system_kvm_api() { return std::make_unique<SystemKvmApi>(); }

int KvmApi::run_kicked(int vcpu_fd) {
    sigset_t kicks, before;
    sigemptyset(&kicks), sigaddset(&kicks, kick_signal);
    pthread_sigmask(SIG_BLOCK, &kicks, &before);
    kick(gettid());
    abi::SignalMask mask;
    int result = ioctl(vcpu_fd, abi::set_signal_mask, &mask);
    if (result >= 0) {
        result = ioctl(vcpu_fd, KVM_RUN, std::uintptr_t(0));
        int restored = ioctl(vcpu_fd, abi::set_signal_mask, std::uintptr_t(0));
        if (restored < 0) result = restored;
    }
    timespec const now{};
    sigtimedwait(&kicks, nullptr, &now);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return result;
}

Error kvm_error(char const* call, int result) { return error_from_errno(-result, "KVM failed: {}", call); }

} // namespace vmm::kvm
