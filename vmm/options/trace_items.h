// The names of `-d` and of the monitor's `log`.
#pragma once
#include "vmm/base/log.h"
#include "vmm/base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace vmm {

// "int,cpu,…" ("all", "none" too) into a mask of vmm::Trace bits. The error is trace_help().
Result<std::uint32_t> parse_trace_items(std::string_view list);
// "Log items (comma separated):" and a line for each, ending in a newline.
std::string trace_help();

} // namespace vmm
