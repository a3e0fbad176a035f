// The verifier: what every well-formed block obeys. Run after each pass in tests and debug builds.
#pragma once
#include "vmm/tcg/ir/ir.h"

#include <optional>
#include <string>

namespace vmm::tcg::ir {

// Nothing when the block is well-formed, else the first problem, naming the instruction's number. Checked: operand
// counts, order and types against the op table; flags only where the table allows; `high` right after its operation;
// within one guest instruction no put or flag change before its last faulting operation (calls excepted: their helper
// knows); the terminal's values.
std::optional<std::string> verify(Block const& block);

} // namespace vmm::tcg::ir
