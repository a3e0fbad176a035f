// Integer expressions of the monitor: 0x10+4*(2-1), $rip, 'a'.
#pragma once
#include "vmm/base/result.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

namespace vmm::monitor {

using RegisterLookup = std::function<std::optional<std::uint64_t>(std::string_view name)>;

// Reads one expression at the start of `text` and removes it (and the blanks around it) from there. Precedence as in
// QEMU: unary, then * / %, then & | ^, then + -. Errors: "unexpected end of expression", "invalid char 'z' in
// expression", "')' expected", "division by zero", "unknown register".
Result<std::uint64_t> parse_expression(std::string_view& text, RegisterLookup const& registers);

} // namespace vmm::monitor
