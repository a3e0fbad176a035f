#include "vmm/machine/vcpu_thread.h"

#include <pthread.h>
#include <unistd.h>

namespace vmm {

VcpuThread::VcpuThread(std::string name, Vcpu& vcpu, Events events)
    : name_(std::move(name)), vcpu_(vcpu), events_(std::move(events)), thread_([this] { main(); }) {}

VcpuThread::~VcpuThread() {
    {
        std::lock_guard lock(mutex_);
        quit_ = true;
    }
    vcpu_.request_exit();
    changed_.notify_all();
    thread_.join();
}

void VcpuThread::ask_to_park() {
    {
        std::lock_guard lock(mutex_);
        park_ = true;
    }
    vcpu_.request_exit();
    changed_.notify_all();
}

void VcpuThread::wait_until_parked() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return parked_; });
}

void VcpuThread::resume() {
    {
        std::lock_guard lock(mutex_);
        park_ = false;
    }
    changed_.notify_all();
}

void VcpuThread::wake() {
    // The lock orders this against a thread between its look at has_work() and its wait.
    { std::lock_guard lock(mutex_); }
    changed_.notify_all();
}

void VcpuThread::wait_for_work(std::unique_lock<std::mutex>& lock) {
    changed_.wait(lock, [&] { return quit_ || park_ || vcpu_.has_work(); });
}

void VcpuThread::main() {
    pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
    thread_id_ = gettid();
    std::unique_lock lock(mutex_);
    for (;;) {
        if (quit_) break;
        if (park_) {
            parked_ = true;
            changed_.notify_all();
            changed_.wait(lock, [&] { return quit_ || !park_; });
            parked_ = false;
            continue;
        }
        lock.unlock();
        ExitReason reason = vcpu_.run(0);
        lock.lock();
        switch (reason) {
        case ExitReason::requested:
        case ExitReason::debug: break;
        case ExitReason::halted:
        case ExitReason::wait_for_sipi: wait_for_work(lock); break;
        case ExitReason::shutdown:
        case ExitReason::internal_error:
            park_ = true;
            lock.unlock();
            if (reason == ExitReason::shutdown)
                events_.on_shutdown();
            else
                events_.on_internal_error(vcpu_.error_text());
            lock.lock();
            break;
        }
    }
    parked_ = true;
    changed_.notify_all();
}

} // namespace vmm
