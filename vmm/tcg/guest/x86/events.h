// What happens between instructions: INIT, SIPI, SMI, NMI, external interrupts (SDM vol. 3 6.9).
#pragma once
#include "vmm/tcg/guest/x86/context.h"

namespace vmm::tcg::x86 {

// Takes the pending event of the highest priority that is not blocked, if there is one; true when state changed. May
// leave Activity::shutdown. The owner of the signals puts them into State (nmi_pending, init_pending, ...) first.
bool handle_events(X86Context& c, bool bsp);

// Whether handle_events would do something. `interrupt` is CpuBus::interrupt_pending().
bool event_waits(State const& s, bool interrupt);

} // namespace vmm::tcg::x86
