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
// The facts the translator asks for at every instruction, small enough to stay in the cache.
struct OpTraits {
    bool has_result : 1, memory : 1, may_fault : 1, reads_flags : 1;
    // Takes cc as an input whatever its operands are; others may, when a count of 0 leaves it as it was.
    bool always_reads_flags : 1;
    bool effect : 1; // other than these; memory and faults not counted
    bool vector : 1; // changes MXCSR's exception flags
};
extern OpTraits const op_traits[opcode_count];
inline OpTraits traits(Opcode op) { return op_traits[unsigned(op)]; }

extern OpInfo const op_table[opcode_count];
inline OpInfo const& info(Opcode op) { return op_table[unsigned(op)]; }

} // namespace vmm::tcg::ir
