// Clang's thread-safety annotations (checked in the `tidy` preset) and the mutex that carries them.
#pragma once
#include <mutex>

#if defined(__clang__)
#define VMM_TSA(x) __attribute__((x))
#else
#define VMM_TSA(x)
#endif
#define VMM_GUARDED_BY(m) VMM_TSA(guarded_by(m))
#define VMM_REQUIRES(...) VMM_TSA(requires_capability(__VA_ARGS__))
#define VMM_EXCLUDES(...) VMM_TSA(locks_excluded(__VA_ARGS__))

namespace vmm {

class VMM_TSA(capability("mutex")) Mutex {
public:
    void lock() VMM_TSA(acquire_capability()) { mutex_.lock(); }
    void unlock() VMM_TSA(release_capability()) { mutex_.unlock(); }
    bool try_lock() VMM_TSA(try_acquire_capability(true)) { return mutex_.try_lock(); }
    std::mutex& native() { return mutex_; }

private:
    std::mutex mutex_;
};

class VMM_TSA(scoped_lockable) MutexLock {
public:
    explicit MutexLock(Mutex& mutex) VMM_TSA(acquire_capability(mutex)) : mutex_(mutex) { mutex_.lock(); }
    ~MutexLock() VMM_TSA(release_capability()) { mutex_.unlock(); }
    MutexLock(MutexLock const&) = delete;
    MutexLock& operator=(MutexLock const&) = delete;

private:
    Mutex& mutex_;
};

} // namespace vmm
