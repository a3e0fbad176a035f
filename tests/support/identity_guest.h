// IdentityGuest: lifted x86 instructions in the interpreter, on a guest whose linear addresses are the host's own, so
// that the host CPU can run the same instructions on the same memory.
#pragma once
#include "vmm/tcg/guest/x86/context.h"
#include "vmm/tcg/guest/x86/helper_row.h"
#include "vmm/tcg/interp/interpreter.h"

#include <cstring>

namespace vmm::test {

// Every address is mapped; nothing faults.
inline constexpr tcg::MemoryOps identity_memory = {
    .load = [](tcg::EngineContext&, std::uint64_t va, unsigned size,
               void* to) { return std::memcpy(to, reinterpret_cast<void*>(va), size), true; },
    .store = [](tcg::EngineContext&, std::uint64_t va, unsigned size,
                void const* from) { return std::memcpy(reinterpret_cast<void*>(va), from, size), true; },
    .rmw_pointer = [](tcg::EngineContext&, std::uint64_t va, unsigned) { return reinterpret_cast<void*>(va); },
    .rmw_lock = [](tcg::EngineContext&) {},
    .rmw_unlock = [](tcg::EngineContext&) {},
    .divide_error = [](tcg::EngineContext& e) { e.fault_pending = tcg::fault_guest; },
    .alignment_fault = [](tcg::EngineContext& e, std::uint64_t) { e.fault_pending = tcg::fault_guest; },
};

// `helpers`: those an instruction may call; any other ends it as a fault, as they need more of a machine than there is.
template <tcg::x86::HelperId... helpers> class IdentityGuest {
public:
    explicit IdentityGuest(tcg::x86::Mode mode) {
        context_.engine.memory = &identity_memory;
        context_.engine.bank = &bank_;
        context_.engine.fp_control = &context_.state.mxcsr;
        context_.engine.mode = mode.bits;
    }
    tcg::x86::X86Context& context() { return context_; }
    tcg::TlbBank& bank() { return bank_; }
    // False: the block faulted.
    bool run(tcg::ir::Block const& block) {
        context_.engine.fault_pending = 0;
        auto code = interpreter_.translate(block);
        interpreter_.run(*code);
        return !context_.faulted();
    }

private:
    static tcg::GuestInfo::Helper row(std::uint16_t id) {
        if (((tcg::x86::HelperId(id) == helpers) || ...)) return tcg::x86::helper_row(id);
        return {.function =
                    [](tcg::EngineContext& e, std::uint64_t, std::uint64_t, std::uint64_t) {
                        e.fault_pending = tcg::fault_guest;
                        return std::uint64_t(0);
                    },
                .name = "fault",
                .reads = true,
                .writes = true,
                .faults = true,
                .memory = true,
                .exits = true,
                .pure = false};
    }

    tcg::TlbBank bank_;
    tcg::x86::X86Context context_;
    tcg::interp::Interpreter interpreter_{context_.engine,
                                          {.pc = &context_.state.rip,
                                           .pc_mask = [](tcg::EngineContext const&) { return ~std::uint64_t(0); },
                                           .helper = row}};
};

} // namespace vmm::test
