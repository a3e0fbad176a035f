// X86Context: one x86 vCPU as the translating engine holds it.
#pragma once
#include "vmm/base/log.h"
#include "vmm/cpu/cpu_bus.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/cpu/x86/state.h"
#include "vmm/tcg/cc.h"
#include "vmm/tcg/context.h"
#include "vmm/tcg/guest/x86/mode.h"

#include <array>
#include <cstddef>

namespace vmm {
namespace x86 {
struct CpuModel;
}
namespace tcg::x86 {

using namespace vmm::x86;

class Mmu;

// An exception waiting for delivery; engine.fault_pending says whether there is one.
struct Fault {
    std::uint8_t vector = 0;
    bool has_error = false;
    bool software = false; // INT n, INT3, INTO: return address after the instruction, DPL check
    std::uint32_t error = 0;
    std::uint64_t address = 0;  // #PF: goes to CR2; not_canonical: where
    bool not_canonical = false; // #GP(0) for an address; delivered as #SS(0) when it was a stack access
    std::uint8_t length = 0;    // software: instruction length
    bool privileged = false;    // software, but no DPL check (INT1)
    bool in_new_task = false;   // raised by a completed task switch: state.rip is the new task's already, kept in `rip`
    std::uint64_t rip = 0;
};

// engine.cc_* hold the arithmetic flags; those bits of state.rflags are stale while the engine runs (see rflags()).
// state.rip is stale inside blocks: engines set it from the instruction map on faults and exits, and blocks set it
// before helpers with the X trait. Only the vCPU's thread touches the object, exit_request excepted.
struct X86Context {
    EngineContext engine; // must be first
    State state;
    Fault fault;
    // Within one instruction executed alone (Mode::single): debug conditions met besides data breakpoints, as DR6 bits;
    // whether the instruction itself loaded RF; whether it began a shadow.
    std::uint64_t pending_debug = 0;
    bool rf_loaded = false, shadow_begun = false;
    unsigned pauses = 0; // PAUSE instructions executed
    // With SIMD exceptions unmasked: what the instruction computed, before it is checked and written. Scratch.
    std::array<std::uint64_t, 4> simd_result{};
    // The rest is wiring, not state.
    CpuBus* bus = nullptr;
    Mmu* mmu = nullptr;
    CpuModel const* model = nullptr;
    CpuidContext cpuid; // the machine's part of CPUID: APIC id, topology
    Log* log = nullptr;

    Mode mode() const { return Mode{engine.mode}; }
    std::uint64_t rflags() const { return (state.rflags & ~flag::arithmetic) | cc_image(engine); }
    void set_rflags(std::uint64_t v) {
        state.rflags = (v & ~flag::arithmetic) | flag::one;
        set_cc_raw(engine, v);
    }
    // Records an exception; the caller then returns to the engine, which delivers it. The first one wins.
    void raise(std::uint8_t vector) { record({.vector = vector}); }
    void raise(std::uint8_t vector, std::uint32_t error) {
        record({.vector = vector, .has_error = true, .error = error});
    }
    void raise_not_canonical(std::uint64_t address) {
        record({.vector = vec::gp, .has_error = true, .address = address, .not_canonical = true});
    }
    void raise_page_fault(std::uint64_t address, std::uint32_t error) {
        record({.vector = vec::pf, .has_error = true, .error = error, .address = address});
    }
    void record(Fault f) {
        if (engine.fault_pending) return;
        fault = f;
        engine.fault_pending = 1;
    }
    bool faulted() const { return engine.fault_pending; }
};
static_assert(offsetof(X86Context, engine) == 0);

inline X86Context& from(EngineContext& e) { return reinterpret_cast<X86Context&>(e); }

// IR slots of the x86 guest: byte offsets from the context.
namespace slot {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
constexpr std::size_t gpr(unsigned index) { return offsetof(X86Context, state) + offsetof(State, gpr) + 8 * index; }
inline constexpr std::size_t rip = offsetof(X86Context, state) + offsetof(State, rip);
inline constexpr std::size_t rflags = offsetof(X86Context, state) + offsetof(State, rflags);
inline constexpr std::size_t kernel_gs_base = offsetof(X86Context, state) + offsetof(State, kernel_gs_base);
inline constexpr std::size_t tsc_aux = offsetof(X86Context, state) + offsetof(State, tsc_aux);
constexpr std::size_t segment_base(unsigned s) {
    return offsetof(X86Context, state) + offsetof(State, seg) + s * sizeof(Segment) + offsetof(Segment, base);
}
constexpr std::size_t segment_selector(unsigned s) {
    return offsetof(X86Context, state) + offsetof(State, seg) + s * sizeof(Segment) + offsetof(Segment, selector);
}
constexpr std::size_t xmm(unsigned index) { return offsetof(X86Context, state) + offsetof(State, ymm) + 32 * index; }
inline constexpr std::size_t mxcsr = offsetof(X86Context, state) + offsetof(State, mxcsr);
inline constexpr std::size_t simd_result = offsetof(X86Context, simd_result);
inline constexpr std::size_t x87 = offsetof(X86Context, state) + offsetof(State, x87);
#pragma GCC diagnostic pop
} // namespace slot

} // namespace tcg::x86
} // namespace vmm
