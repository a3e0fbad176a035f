// EngineContext: the guest-neutral head of a vCPU's context: what translated code and the interpreter touch on every
// block. Guest contexts (guest/x86/context.h, ...) begin with it; IR slots are byte offsets from its address.
#pragma once
#include "vmm/memory/ram.h"
#include "vmm/tcg/mmu/tlb.h"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace vmm::tcg {

// How the condition codes are kept between the instruction that defines them and one that wants them: an operation, its
// result and one source, from which any flag can be computed (cc.h), or the flags themselves (raw). The low two bits of
// the stored value are log2 of the width in bytes.
enum class CcKind : std::uint8_t {
    raw,    // src: the six flags at their RFLAGS places
    add,    // res = x + src
    adc,    // res = x + src + 1
    sub,    // res = x - src
    sbb,    // res = x - src - 1
    logic,  // res; CF = OF = AF = 0
    inc,    // res; src: CF (0 or 1)
    dec,    // res; src: CF (0 or 1)
    res_co, // SF, ZF, PF by res; src: CF, OF and AF at their RFLAGS places
    lahf,   // src: bits 8-15 as LAHF puts them into AH, bit 0: OF; the other bits are anything
};
constexpr std::uint32_t cc_op(CcKind kind, unsigned log2_bytes) { return std::uint32_t(kind) << 2 | log2_bytes; }

struct EngineContext;
class Translation;

// What running code asks of the engine.
class CodeGuard {
public:
    virtual ~CodeGuard() = default;
    // After a helper that changed the program counter, the mode or translations: whether the next block may be entered
    // at once. False: something waits for the engine's loop.
    virtual bool may_continue(EngineContext& context) = 0;
    // The translation of the code at a guest address in the current mode and address space, where that is known without
    // looking at the guest's tables; null otherwise.
    virtual Translation* find(EngineContext& context, std::uint64_t address) = 0;
    // Asked before a guest store reaches a page with page_has_code (vmm/memory/ram.h), while the code may be running.
    // False: the store hits the block being executed; the engine will execute this one instruction again by itself. The
    // caller then returns failure with fault_pending == fault_retry and has changed nothing.
    virtual bool before_code_write(EngineContext& context, RamBlock& block, std::uint64_t offset,
                                   std::uint64_t size) = 0;
};

// Values of EngineContext::fault_pending.
inline constexpr std::uint32_t fault_none = 0, fault_guest = 1, fault_retry = 2;

// Slow paths of guest memory, given by the guest's MMU. Addresses are linear; current privilege. On a fault they record
// it in the context (fault_pending) and return false / nullptr.
struct MemoryOps {
    bool (*load)(EngineContext&, std::uint64_t va, unsigned size, void* to);
    bool (*store)(EngineContext&, std::uint64_t va, unsigned size, void const* from);
    // A host pointer good for one read-modify-write of `size` bytes at va with write permission, code pages already
    // invalidated and dirty bits set; nullptr with fault_pending clear means "no such pointer" (MMIO or crosses a
    // page): use load + store under the bus lock (rmw_lock/rmw_unlock).
    void* (*rmw_pointer)(EngineContext&, std::uint64_t va, unsigned size);
    void (*rmw_lock)(EngineContext&);
    void (*rmw_unlock)(EngineContext&);
    // Raises the guest's divide fault (udiv2, sdiv2).
    void (*divide_error)(EngineContext&);
    // The guest's alignment fault for a mem_aligned access.
    void (*alignment_fault)(EngineContext&, std::uint64_t va);
};

struct alignas(64) EngineContext {
    // Set by other threads (kick) and by helpers; checked at block ends.
    std::atomic<std::uint32_t> exit_request{0};
    // Condition codes, see CcKind.
    std::uint32_t cc_op = 0;
    std::uint64_t cc_res = 0, cc_src = 0;
    // Guest address of the first byte of the current code page, minus nothing: program counter = pc_base + in-page
    // offset.
    std::uint64_t pc_base = 0;
    // The current privilege's translation tables.
    TlbBank* bank = nullptr;
    // What a block's translation depends on besides its bytes (guest/x86/mode.h).
    std::uint64_t mode = 0;
    // Set when a fault waits for delivery (details in the guest's context); translated code leaves the block at once.
    std::uint32_t fault_pending = fault_none;
    std::uint32_t reserved = 0;
    // Guest instructions executed, counted by block.
    std::uint64_t insn_count = 0;
    MemoryOps const* memory = nullptr;
    // The guest's SIMD control and status register (MXCSR), in its state.
    std::uint32_t* fp_control = nullptr;
    CodeGuard* code_guard = nullptr; // null: nobody translates (tests)
    void* backend = nullptr;         // the back end's own
    void* address_cache = nullptr;   // likewise, for indirect jumps
    // Moves whenever a translation that fetches may have used has gone. Which counter this is says whose fetches: what
    // is known of the code at an address holds while the pointer, the count and `mode` stay. Null: for good.
    std::uint64_t const* fetch_epoch = nullptr;
};

} // namespace vmm::tcg
