// VcpuThread: the thread that runs one vCPU, and how the others stop, continue and wake it.
#pragma once
#include "vmm/cpu/vcpu.h"

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace vmm {

// Starts parked. park/resume/wake are for any thread; park and the destructor must not be called with the device lock
// held (the vCPU may be waiting for it).
class VcpuThread {
public:
    struct Events {
        // On the vCPU's thread, which has parked itself: triple fault, or the engine cannot go on.
        std::function<void()> on_shutdown;
        std::function<void(std::string const& text)> on_internal_error;
    };
    VcpuThread(std::string name, Vcpu& vcpu, Events events);
    ~VcpuThread();
    VcpuThread(VcpuThread const&) = delete;
    VcpuThread& operator=(VcpuThread const&) = delete;

    // Asks the vCPU to leave guest code; returns at once.
    void ask_to_park();
    // Waits until it has. Then its state may be read and written until resume().
    void wait_until_parked();
    void resume();
    // Something may have happened that ends a HLT.
    void wake();
    // The kernel's thread id, 0 before it runs.
    int thread_id() const { return thread_id_.load(); }

private:
    void main();
    void wait_for_work(std::unique_lock<std::mutex>& lock);

    std::string name_;
    Vcpu& vcpu_;
    Events events_;
    std::mutex mutex_; // guards the flags; taken last (after the device lock)
    std::condition_variable changed_;
    bool park_ = true, parked_ = false, quit_ = false;
    std::atomic<int> thread_id_{0};
    std::thread thread_;
};

} // namespace vmm
