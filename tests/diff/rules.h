// Which instructions a sequence may hold, and what they do with the flags.
#pragma once
#include "tests/diff/sample.h"

#include <Zydis/Zydis.h>

namespace vmm::diff {

inline constexpr std::uint64_t arithmetic_flags = 0xcd5; // DF among them

// Whether the instruction's effect depends on nothing but the state both sides share. Branches are not asked about.
bool allowed(ZydisDecodedInstruction const& insn);
// Whether its operands may be what they are; `kept`: general registers it must not write, a bit set.
bool operands_allowed(ZydisDecodedInstruction const& insn, ZydisDecodedOperand const* operands, unsigned kept);
bool is_horizontal(ZydisMnemonic mnemonic); // HADDPS and relatives
// With RFLAGS.AC set: operands of 16 bytes and more that are checked as the CPU likes.
bool checks_alignment_its_way(ZydisMnemonic mnemonic);
bool loads_mxcsr(ZydisMnemonic mnemonic);
// What it does, without its place in a sequence.
Sequence::Instruction effects(ZydisDecodedInstruction const& insn, ZydisDecodedOperand const* operands);

} // namespace vmm::diff
