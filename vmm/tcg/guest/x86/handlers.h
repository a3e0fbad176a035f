// The handlers named by instructions.inc (contract: lifter.h).
#pragma once

namespace vmm::tcg::x86 {

class Lifter;
#define I(mnemonic, handler) bool handler(Lifter& l);
#include "vmm/tcg/guest/x86/instructions.inc"
#undef I

} // namespace vmm::tcg::x86
