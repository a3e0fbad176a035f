// compile: from an IR block to the interpreter's code.
#pragma once
#include "vmm/tcg/interp/code.h"

#include <span>

namespace vmm::tcg::interp {

// A temporary value's room; results of widening operations use the second word too.
struct alignas(32) Temp {
    std::uint64_t q[4];
};

// Temporaries a block may have live at once; blocks that need more end the process (lift limits keep far below).
inline constexpr unsigned max_temps = 512;

// `context` is the address IR slots count from; `temps` has max_temps entries; `runtime` is where terminals report.
std::unique_ptr<InterpBlock> compile(ir::Block const& block, std::uint8_t* context, std::span<Temp> temps,
                                     Runtime& runtime);

} // namespace vmm::tcg::interp
