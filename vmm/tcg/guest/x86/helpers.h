// Helpers: C++ functions that IR `call` instructions name. One table per family; each row is a function of that name.
#pragma once
#include "vmm/tcg/guest/x86/context.h"

#include <cstdint>
#include <string_view>

namespace vmm::tcg::x86 {

// HELPER(name, traits): u64 name(X86Context&, u64 a, u64 b, u64 c) in namespace helper. Traits:
//   R reads general/vector registers, flags or rip from the context   W writes them
//   F may raise a fault (engine.fault_pending)                        M accesses guest memory
//   X may change pc, mode, translations: the block ends after it with Dispatch, and the block has put the next
//   instruction's
//     address into slot::rip before the call
//   P pure: result depends on arguments only
enum class HelperId : std::uint16_t {
#define HELPER(name, traits) name,
#include "vmm/tcg/guest/x86/helpers_fp.inc"
#include "vmm/tcg/guest/x86/helpers_integer.inc"
#include "vmm/tcg/guest/x86/helpers_system.inc"
#undef HELPER
    count
};

namespace helper {
#define HELPER(name, traits) std::uint64_t name(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d);
#include "vmm/tcg/guest/x86/helpers_fp.inc"
#include "vmm/tcg/guest/x86/helpers_integer.inc"
#include "vmm/tcg/guest/x86/helpers_system.inc"
#undef HELPER
} // namespace helper

using HelperFunction = std::uint64_t (*)(X86Context&, std::uint64_t, std::uint64_t, std::uint64_t);
struct HelperInfo {
    char const* name;
    HelperFunction function;
    bool reads, writes, faults, memory, exits, pure;
};
// By HelperId.
HelperInfo const& helper_info(HelperId id);

} // namespace vmm::tcg::x86
