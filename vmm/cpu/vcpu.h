// The engine seam: what the machine sees of a virtual CPU, whichever engine runs it.
#pragma once
#include "vmm/base/result.h"
#include "vmm/cpu/x86/state.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmm {

// Why Vcpu::run() came back.
enum class ExitReason : std::uint8_t {
    requested,      // request_exit() was called, or the budget ran out
    halted,         // HLT (or MWAIT) with nothing pending: wait for a signal, then run again
    shutdown,       // triple fault: the board decides (reset)
    wait_for_sipi,  // INIT received: wait
    debug,          // breakpoint or single step asked for by a debugger
    internal_error, // the engine cannot go on; error_text() says why
};

// Things other components tell a CPU. Level-style INTR is not here: the CPU polls CpuBus::interrupt_pending.
enum class CpuSignal : std::uint8_t { nmi, smi, init, sipi };

// One virtual x86 CPU. run() is called on the CPU's own thread and holds no lock; state access needs the CPU to be out
// of run(); signal(), interrupt_changed() and request_exit() are for any thread.
class Vcpu {
public:
    virtual ~Vcpu() = default;

    // Executes guest code until there is a reason to stop. `budget`: at most about this many guest instructions (0: no
    // limit; an engine that cannot count ignores it).
    virtual ExitReason run(std::uint64_t budget) = 0;
    // Makes a running or the next run() return soon with `requested`.
    virtual void request_exit() = 0;
    // Tells that CpuBus::interrupt_pending() may have changed to true; wakes nobody by itself.
    virtual void interrupt_changed() = 0;
    // NMI, SMI, INIT, SIPI (with its vector).
    virtual void signal(CpuSignal what, std::uint8_t vector) = 0;
    // True when run() would have something to do (pending interrupt, NMI, ...) although the CPU is halted.
    virtual bool has_work() const = 0;

    virtual x86::State state() const = 0;
    // Takes over a whole state; forgets every cached translation.
    virtual void set_state(x86::State const& state) = 0;
    // What only an engine of the same kind understands, beyond state(): that of a guest within the guest. Empty: nothing
    // of it is in use. Set after set_state(). Errors: the host refuses; this engine cannot go on from it.
    virtual Result<std::vector<std::uint8_t>> own_state() const { return std::vector<std::uint8_t>(); }
    virtual Result<void> set_own_state(std::vector<std::uint8_t> const& bytes) {
        if (bytes.empty()) return {};
        return error("the guest runs guests of its own, which only KVM can go on with");
    }
    // Power-on reset (SDM vol. 3 table 10-1). `bsp`: bootstrap processor; others wait for SIPI.
    virtual void reset(bool bsp) = 0;

    // The physical address behind a linear one by the current page tables, without rights, faults or accessed bits; for
    // debuggers, while the CPU is out of run().
    virtual std::optional<std::uint64_t> translate(std::uint64_t linear) = 0;

    // What a translating engine counts (blocks, code cache, TLB) and its `hottest` most executed blocks, as text; while
    // the CPU is out of run(). Errors: the engine does not translate; it does not count executions.
    virtual Result<std::string> translation_text(unsigned hottest) const {
        static_cast<void>(hottest);
        return error("JIT information is only available with accel=tcg");
    }

    // The text behind internal_error.
    virtual std::string error_text() const = 0;
    // "kvm", "jit", "interp".
    virtual char const* engine_name() const = 0;
};

} // namespace vmm
