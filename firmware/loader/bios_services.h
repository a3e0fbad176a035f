// What real-mode code finds at the interrupt vectors of a machine started without a BIOS.
#pragma once
#include "firmware/loader/load_context.h"

namespace vmm::firmware {

// Fills the interrupt vector table and puts its handlers into the EBDA. Multiboot kernels may call a BIOS (Xen asks it
// for memory, disks and the screen): memory size and equipment are answered from the BIOS data area, video calls do
// nothing, all others say "not supported" (CF set, AH = 86h), and a hardware interrupt is acknowledged.
Result<void> write_bios_services(LoadContext& context);

} // namespace vmm::firmware
