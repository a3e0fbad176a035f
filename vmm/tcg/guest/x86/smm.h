// System management mode: entering it by an SMI, and RSM (SDM vol. 3 ch. 32; AMD APM vol. 2 ch. 10).
#pragma once
#include "vmm/tcg/guest/x86/context.h"

namespace vmm::tcg::x86 {

// Saves the state at SMBASE + 0xfe00 in AMD's 64-bit layout (APM table 10-1; every model's, those without long mode
// included) and enters the handler at SMBASE + 0x8000 with the bus in SMM. NMIs and INIT wait until leave_smm().
void enter_smm(X86Context& c);
// RSM inside SMM: takes the state back, whatever the handler has made of it; one that no CPU can be in is a shutdown.
void leave_smm(X86Context& c);

} // namespace vmm::tcg::x86
