// WriteShortcuts: guest writes that need not stop the CPU: doorbells (ioeventfd) and writes that may come late, in
// order (coalesced). An engine takes those it can; on the others the writes reach their devices as any other does.
#pragma once
#include "vmm/base/event_loop.h"
#include "vmm/base/thread_annotations.h"
#include "vmm/base/unique_fd.h"
#include "vmm/memory/address_space.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace vmm {

// A write that says no more than that it happened.
struct Doorbell {
    GuestPhys address = 0;
    unsigned size = 0; // 1, 2, 4, 8: of the whole write
    bool port = false;
    std::optional<std::uint64_t> value{}; // only this one rings
};

// Writes that have no effect anybody can see before the next access of another kind: a register that is read back, a
// delay port, a frame buffer behind registers.
struct LateWrites {
    AddressRange range;
    bool port = false;
};

// What an engine does of it. False: nothing; the writes come by the bus. Errors: the host refuses.
class WriteShortcutEngine {
public:
    virtual ~WriteShortcutEngine() = default;
    // `eventfd` is signalled at each such write, which the bus does not see.
    virtual Result<bool> take_doorbell(int eventfd, Doorbell const& doorbell) = 0;
    // The bus sees them before any other access of any CPU.
    virtual Result<bool> take_late_writes(LateWrites const& writes) = 0;
};

// Of one machine, on the loop's thread; made before the vCPUs run.
class WriteShortcuts {
public:
    WriteShortcuts(EventLoop& loop, Mutex& device_lock) : loop_(loop), device_lock_(device_lock) {}
    ~WriteShortcuts();
    WriteShortcuts(WriteShortcuts const&) = delete;
    WriteShortcuts& operator=(WriteShortcuts const&) = delete;

    // `ring` is called with the device lock, with the number of writes since it was last called; the device does the
    // same for a write that comes by the bus. Errors: no descriptors left.
    Result<void> add(Doorbell doorbell, std::function<void(std::uint64_t times)> ring);
    void add(LateWrites writes) { late_.push_back(writes); }
    // From now on by this engine (null: by none), whose CPUs are not running yet.
    Result<void> use(WriteShortcutEngine* engine);
    // Rings what has been rung so far: before the machine's state is looked at. The CPUs are out of guest code.
    void settle();

private:
    struct Bell {
        Doorbell doorbell;
        std::function<void(std::uint64_t)> ring;
        UniqueFd event;
    };
    void answer(Bell& bell);

    EventLoop& loop_;
    Mutex& device_lock_;
    std::vector<std::unique_ptr<Bell>> bells_;
    std::vector<LateWrites> late_;
};

} // namespace vmm
