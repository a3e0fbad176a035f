// Passes: functions that make a block cheaper without changing what a guest can see, at any point where it can look.
#pragma once
#include "vmm/tcg/ir/ir.h"

namespace vmm::tcg::ir {

// Removes instructions without effect whose values nobody uses.
void eliminate_dead_code(Block& block);
// Computes what depends on constants only; additions of constants become `lea`, chains of `lea` one.
void fold_constants(Block& block);
// Drops sets_flags (and put_flags) where cc is defined anew before anything reads it and before anything that may
// fault, call or leave the block.
void eliminate_dead_flags(Block& block);
// All of them, in the order that pays.
void optimize(Block& block);

} // namespace vmm::tcg::ir
