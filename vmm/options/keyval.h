// The small grammar inside an option's argument: "first,key=value,flag,noflag,with,,comma", numbers, sizes, bools.
#pragma once
#include "vmm/base/result.h"
#include "vmm/options/config.h"

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace vmm {

// Splits at single commas; ",," is a comma in a value. A first item without "=" gets the key `implied` when that is not
// empty; any other "x" is x=on, and "nox" is x=off.
Properties parse_list(std::string_view text, std::string_view implied = {});

// Error for the first key of `list` that is not in `known`, naming the nearest one that is: "Invalid parameter 'foo'",
// or "Parameter 'OF.foo' is unexpected" where `of` names what the parameters describe.
Result<void> check_known(Properties const& list, std::initializer_list<std::string_view> known,
                         std::string_view of = {});

// "on", "yes", "true", "y" and their opposites. Error: "Parameter 'NAME' expects 'on' or 'off'".
Result<bool> parse_bool(std::string_view name, std::string_view value);
// The value of `name` in `list`, or `otherwise` when it is not there.
Result<bool> bool_of(Properties const& list, std::string_view name, bool otherwise);
// Decimal, 0x… or 0… octal, whole string. Error: "Parameter 'NAME' expects a number".
Result<std::uint64_t> parse_number(std::string_view name, std::string_view value);
// A whole or fractional number with suffix B, k, M, G, T, P or E; without one it counts `default_unit` bytes. Error:
// "Parameter 'NAME' expects a non-negative number below 2^64" and two lines on suffixes.
Result<std::uint64_t> parse_size(std::string_view name, std::string_view value, std::uint64_t default_unit);

bool is_help(std::string_view text); // "help" or "?"

} // namespace vmm
