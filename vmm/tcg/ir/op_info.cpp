#include "vmm/tcg/ir/op_info.h"

namespace vmm::tcg::ir {

static constexpr OpInfo make(std::string_view name, std::string_view result, std::string_view args,
                             std::string_view traits) {
    auto has = [&](char c) { return traits.find(c) != std::string_view::npos; };
    return {.name = name.ends_with('_') ? name.substr(0, name.size() - 1) : name,
            .has_result = result != "N",
            .truth_result = result == "F1",
            .args = args,
            .may_set_flags = has('S'),
            .reads_flags = has('C'),
            .memory = has('M'),
            .writes_memory = has('W'),
            .effect = has('E'),
            .may_fault = has('D') || has('M')};
}

static constexpr char const *V = "V", *N = "N", *F1 = "F1";

constexpr OpInfo op_table[opcode_count] = {
#define OP(name, result, args, traits, doc) make(#name, result, args, traits),
#include "vmm/tcg/ir/opcodes.inc"
#undef OP
};

static constexpr bool always_reads_flags(Opcode op) {
    switch (op) {
    case Opcode::adc:
    case Opcode::sbb:
    case Opcode::rcl:
    case Opcode::rcr:
    case Opcode::rmw_adc:
    case Opcode::rmw_sbb:
    case Opcode::setcc:
    case Opcode::select_cc:
    case Opcode::get_flags: return true;
    default: return false;
    }
}

static constexpr OpTraits make_traits(Opcode op, OpInfo const& info) {
    return {.has_result = info.has_result,
            .memory = info.memory,
            .may_fault = info.may_fault,
            .reads_flags = info.reads_flags,
            .always_reads_flags = always_reads_flags(op),
            .effect = info.effect,
            .vector = op == Opcode::vec || op == Opcode::vec_to_gpr || op == Opcode::gpr_to_vec};
}

constexpr OpTraits op_traits[opcode_count] = {
#define OP(name, result, args, traits, doc) make_traits(Opcode::name, make(#name, result, args, traits)),
#include "vmm/tcg/ir/opcodes.inc"
#undef OP
};

} // namespace vmm::tcg::ir
