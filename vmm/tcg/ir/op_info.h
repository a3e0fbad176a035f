// Facts about each opcode, from the op table.
#pragma once
#include "vmm/tcg/ir/ir.h"

#include <string_view>

namespace vmm::tcg::ir {

struct OpInfo {
    std::string_view name;
    bool has_result, truth_result;
    std::string_view args;
    bool may_set_flags, reads_flags, memory, writes_memory, effect, may_fault;
};
extern OpInfo const op_table[opcode_count];
inline OpInfo const& info(Opcode op) { return op_table[unsigned(op)]; }

} // namespace vmm::tcg::ir
