// Delivery of exceptions and interrupts (SDM vol. 3 chapter 6): IVT, IDT gates, double and triple faults.
#pragma once
#include "vmm/tcg/guest/x86/context.h"

#include <cstdint>

namespace vmm::tcg::x86 {

// Delivers the recorded Fault and clears it. state.rip is the address of the instruction it belongs to (software
// interrupts: Fault::length says how long that is). Faults met on the way become #DF or a shutdown
// (Activity::shutdown).
void deliver(X86Context& c);

// Delivers an external interrupt or (vector 2, `nmi`) a non-maskable one at the instruction boundary state.rip.
void deliver_interrupt(X86Context& c, std::uint8_t vector, bool nmi = false);

// What an instruction executed alone (Mode::single) must know of the time before it.
struct StepStart {
    bool trap = false;         // TF
    bool shadow = false;       // interrupts were held back
    bool debug_shadow = false; // debug exceptions too
};
// Before the block. False: an instruction breakpoint was hit and #DB recorded: deliver it instead.
bool begin_single_step(X86Context& c, StepStart& start);
// After the block ended without a fault: ends shadows and RF, takes the single-step and data-breakpoint traps. May
// record #DB; the caller delivers it as usual.
void after_single_step(X86Context& c, StepStart const& start);

} // namespace vmm::tcg::x86
