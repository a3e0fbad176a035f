// What one vCPU's translator has done so far, as text for the monitor's `info jit`.
#pragma once
#include "vmm/tcg/engine/block_cache.h"
#include "vmm/tcg/guest/x86/mmu.h"

#include <string>

namespace vmm::tcg {

// Lines in the style of QEMU's `info jit`. The vCPU is not running.
std::string translation_report(BlockCache const& cache, BackendStatistics const& backend,
                               x86::MmuStatistics const& mmu);
// The `count` blocks entered most often, one a line, hottest first.
std::string hottest_blocks(BlockCache const& cache, unsigned count);

} // namespace vmm::tcg
