// Telling stack accesses from others after the fact: #SS(0) or #GP(0) for addresses that are not canonical.
#pragma once
#include "vmm/tcg/guest/x86/context.h"

#include <cstdint>

namespace vmm::tcg::x86 {

// Whether the instruction at state.rip (64-bit code, its registers still unchanged) accesses linear address `va`
// through SS: by RSP or RBP as base, or implicitly. Decodes it again: the fast paths need not carry the segment along.
bool is_stack_access(X86Context& c, std::uint64_t va);

} // namespace vmm::tcg::x86
