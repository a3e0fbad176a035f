#include "block/tools/common/arguments.h"

#include "block/core/option_values.h"

#include <algorithm>

namespace vmm::block {

namespace {

// The row a long option (perhaps abbreviated) means; null: none, or more than one.
OptionRow const* find_long(std::span<OptionRow const> rows, std::string_view name) {
    OptionRow const* found = nullptr;
    for (OptionRow const& row : rows) {
        if (row.name.empty() || !row.name.starts_with(name)) continue;
        if (row.name == name) return &row;
        if (found) return nullptr;
        found = &row;
    }
    return name.empty() ? nullptr : found;
}

} // namespace

Result<Arguments> Arguments::parse(std::span<std::string const> words, std::span<OptionRow const> rows) {
    Arguments result;
    bool only_operands = false;
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::string const& word = words[i];
        if (only_operands || word.size() < 2 || word[0] != '-') {
            result.operands_.push_back(word);
        } else if (word == "--") {
            only_operands = true;
        } else if (word.starts_with("--")) {
            std::size_t equals = word.find('=');
            OptionRow const* row = find_long(rows, std::string_view(word).substr(2, equals - 2));
            if (!row || (equals != std::string::npos && !row->has_value))
                return error("unrecognized option '{}'", word);
            if (row->has_value && equals == std::string::npos && i + 1 >= words.size())
                return error("missing argument for option '{}'", word);
            std::string value;
            if (row->has_value) value = equals == std::string::npos ? words[++i] : word.substr(equals + 1);
            result.given_.push_back({*row, std::move(value)});
        } else {
            for (std::size_t at = 1; at < word.size(); ++at) {
                auto row = std::ranges::find(rows, word[at], &OptionRow::letter);
                if (row == rows.end()) return error("unrecognized option '{}'", word);
                if (!row->has_value) {
                    result.given_.push_back({*row, {}});
                    continue;
                }
                if (at + 1 == word.size() && i + 1 >= words.size())
                    return error("missing argument for option '{}'", word);
                result.given_.push_back({*row, at + 1 < word.size() ? word.substr(at + 1) : words[++i]});
                break;
            }
        }
    }
    return result;
}

bool Arguments::has(char letter) const { return value(letter) != nullptr; }
bool Arguments::has(std::string_view name) const { return value(name) != nullptr; }

std::string const* Arguments::value(char letter) const {
    std::string const* found = nullptr;
    for (Given const& one : given_)
        if (one.row.letter == letter) found = &one.value;
    return found;
}
std::string const* Arguments::value(std::string_view name) const {
    std::string const* found = nullptr;
    for (Given const& one : given_)
        if (one.row.name == name) found = &one.value;
    return found;
}
std::vector<std::string> Arguments::values(char letter) const {
    std::vector<std::string> all;
    for (Given const& one : given_)
        if (one.row.letter == letter) all.push_back(one.value);
    return all;
}
std::vector<std::string> Arguments::values(std::string_view name) const {
    std::vector<std::string> all;
    for (Given const& one : given_)
        if (one.row.name == name) all.push_back(one.value);
    return all;
}
std::string Arguments::value_or(char letter, std::string_view fallback) const {
    std::string const* found = value(letter);
    return found ? *found : std::string(fallback);
}

Result<std::uint64_t> parse_byte_count(std::string_view program, std::string_view what, std::string_view text) {
    Result<std::uint64_t> parsed = parse_size(text, what);
    if (parsed.ok() && *parsed <= std::uint64_t(INT64_MAX)) return parsed;
    return error("Invalid {} specified. You may use k, M, G, T, P or E suffixes for\n"
                 "{}: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
                 what, program);
}

} // namespace vmm::block
