// The IR's text form: one instruction per line, every field that is not its default, so that it round-trips.
//
//   block start=16 insns=1 bytes=3
//     insn_start.i64 aux=3 imm=16
//     %1 = get.i64 slot=rax
//     %2 = add.i64 flags %1 %1
//     put.i64 %2 slot=rax
//     end jump target=19
//
// Values are numbered by position (value-less instructions take a number too). An absent argument before a present one
// is
// "_". Comments run from ';' to the line's end.
#pragma once
#include "vmm/base/result.h"
#include "vmm/tcg/ir/ir.h"

#include <optional>
#include <string>
#include <string_view>

namespace vmm::tcg::ir {

// A guest's names for context slots and helpers. Without one, numbers are written.
class Names {
public:
    virtual ~Names() = default;
    virtual std::optional<std::string> slot_name(std::int64_t offset) const = 0;
    virtual std::optional<std::int64_t> slot_offset(std::string_view name) const = 0;
    virtual std::optional<std::string> helper_name(std::int64_t id) const = 0;
    virtual std::optional<std::int64_t> helper_id(std::string_view name) const = 0;
};

std::string to_text(Block const& block, Names const* names = nullptr);
// The inverse. Errors name the line.
Result<Block> parse(std::string_view text, Names const* names = nullptr);

} // namespace vmm::tcg::ir
