// Passes: functions that make a block cheaper without changing what a guest can see, at any point where it can look.
#pragma once
#include "vmm/tcg/ir/ir.h"

#include <vector>

namespace vmm::tcg::ir {

// Removes instructions without effect whose values nobody uses. `scratch`: memory to work in.
void eliminate_dead_code(Block& block, std::vector<ValueId>& scratch);
// Computes what depends on constants only; additions of constants become `lea`, chains of `lea` one.
void fold_constants(Block& block);
// Drops sets_flags (and put_flags) where cc is defined anew before anything reads it and before anything that may
// fault, call or leave the block.
void eliminate_dead_flags(Block& block);

// All of them, in the order that pays; for one block after another.
class Passes {
public:
    void optimize(Block& block);

private:
    std::vector<ValueId> scratch_;
};
inline void optimize(Block& block) { Passes().optimize(block); }
inline void eliminate_dead_code(Block& block) {
    std::vector<ValueId> scratch;
    eliminate_dead_code(block, scratch);
}

} // namespace vmm::tcg::ir
