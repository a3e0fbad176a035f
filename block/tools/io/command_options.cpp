#include "block/tools/io/command_options.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace vmm::block {

std::string const* Flags::value(char letter) const {
    std::string const* found = nullptr;
    for (auto const& [name, text] : values)
        if (name == letter) found = &text;
    return found;
}

std::optional<Flags> parse_flags(std::span<std::string const> words, std::string_view allowed) {
    Flags flags;
    bool only_operands = false;
    for (std::size_t i = 1; i < words.size(); ++i) {
        std::string const& word = words[i];
        if (only_operands || word.size() < 2 || word[0] != '-') {
            flags.operands.push_back(word);
            continue;
        }
        if (word == "--") {
            only_operands = true;
            continue;
        }
        for (std::size_t at = 1; at < word.size(); ++at) {
            char letter = word[at];
            std::size_t known = letter == ':' ? std::string_view::npos : allowed.find(letter);
            bool takes_value =
                known != std::string_view::npos && known + 1 < allowed.size() && allowed[known + 1] == ':';
            bool missing = takes_value && at + 1 == word.size() && i + 1 >= words.size();
            if (known == std::string_view::npos || missing) {
                std::fflush(stdout);
                std::fprintf(stderr,
                             missing ? "%s: option requires an argument -- '%c'\n" : "%s: invalid option -- '%c'\n",
                             words[0].c_str(), letter);
                return std::nullopt;
            }
            flags.letters += letter;
            if (takes_value) {
                flags.values.emplace_back(letter, at + 1 < word.size() ? word.substr(at + 1) : words[++i]);
                break;
            }
        }
    }
    return flags;
}

int show_synopsis(std::string_view name) {
    auto found = std::ranges::find(io_commands(), name, &IoCommand::name);
    VMM_ASSERT(found != io_commands().end());
    std::printf("%s\n", io_one_line_help(*found).c_str());
    return -EINVAL;
}

std::optional<std::int64_t> parse_amount(std::string const& text) {
    Result<std::uint64_t> value = parse_size(text, "");
    if (value.ok() && *value <= std::uint64_t(INT64_MAX)) return std::int64_t(*value);
    bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
    if (value.ok() || digits)
        std::printf("Parsing error: argument too large -- %s\n", text.c_str());
    else
        std::printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", text.c_str());
    return std::nullopt;
}

std::optional<int> parse_pattern(std::string const& text) {
    char* end = nullptr;
    long value = std::strtol(text.c_str(), &end, 0);
    if (!text.empty() && !*end && value >= 0 && value <= 255) return int(value);
    std::printf("%s is not a valid pattern byte\n", text.c_str());
    return std::nullopt;
}

} // namespace vmm::block
