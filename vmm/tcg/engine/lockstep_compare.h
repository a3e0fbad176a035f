// What two engines that did the same are compared by.
#pragma once
#include "vmm/cpu/x86/state.h"

#include <cstdint>
#include <string>

struct ZydisDecodedInstruction_;

namespace vmm::tcg {

// Whether everything a program could notice but the flags is the same.
bool same_registers(vmm::x86::State const& a, vmm::x86::State const& b);
// One line for each field whose value differs, by the names that snapshots use.
std::string different_fields(vmm::x86::State const& a, vmm::x86::State const& b);
// Flags that this instruction leaves undefined (SDM vol. 2), or may leave, depending on a count.
std::uint64_t undefined_flags(ZydisDecodedInstruction_ const& decoded);

} // namespace vmm::tcg
