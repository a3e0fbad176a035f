// lift_block: decodes x86 instructions and builds the IR block they mean.
#pragma once
#include "vmm/tcg/guest/x86/mode.h"
#include "vmm/tcg/ir/ir.h"

#include <cstdint>

namespace vmm {
namespace x86 {
struct CpuModel;
}
namespace tcg::x86 {

// Where the code lies. `page` is the host address of the (4 KiB) guest page the block starts in, `next_page` that of
// the following linear page or null when not translated.
struct CodeWindow {
    std::uint8_t const* page;
    std::uint8_t const* next_page;
    unsigned offset; // of the first instruction, 0..4095
};
struct LiftLimits {
    unsigned max_insns = 64; // guest instructions; Mode::single means 1 whatever this says
    unsigned max_ir = 2000;  // ends the block early past this many IR instructions
};
enum class LiftStatus : std::uint8_t {
    ok,
    needs_next_page, // the first instruction runs into the next page and next_page is null: translate it (it may fault)
                     // and call again
};

// Blocks never run over the page's end, except that a first instruction which straddles makes a block of its own
// (crosses_page). Undefined or over-long (>15 bytes) instructions become a block that raises #UD / #GP(0). `model`
// decides which extensions exist; absent ones are #UD. Never fails otherwise; any bytes are fine.
LiftStatus lift_block(Mode mode, vmm::x86::CpuModel const& model, CodeWindow code, LiftLimits limits, ir::Block& out);

} // namespace tcg::x86
} // namespace vmm
