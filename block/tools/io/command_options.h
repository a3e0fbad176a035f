// The getopt-style flags, numbers and pattern bytes of vmm-io's commands.
#pragma once
#include "block/tools/io/session.h"

#include <optional>
#include <string>
#include <vector>

namespace vmm::block {

struct Flags {
    std::string letters; // given ones, in order
    std::vector<std::pair<char, std::string>> values;
    std::vector<std::string> operands;
    bool has(char letter) const { return letters.find(letter) != std::string::npos; }
    std::string const* value(char letter) const;
};
// `allowed` as getopt's ("bCP:"). Flags may stand between operands. Nothing: an error was printed
// ("read: invalid option -- 'Z'").
std::optional<Flags> parse_flags(std::span<std::string const> words, std::string_view allowed);

// Prints the one-line synopsis of the command (what a wrong flag gets); answers -EINVAL.
int show_synopsis(std::string_view name);
// "4k" as a number of bytes below 2^63; else prints why and answers nothing.
std::optional<std::int64_t> parse_amount(std::string const& text);
// 0 to 255, decimal, 0x or 0; else prints why.
std::optional<int> parse_pattern(std::string const& text);

} // namespace vmm::block
