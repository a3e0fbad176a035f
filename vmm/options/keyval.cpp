#include "vmm/options/keyval.h"

#include "vmm/base/checked.h"
#include "vmm/base/text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace vmm {

namespace {
// The text up to the next single comma, with ",," turned into ","; advances `text` past the comma.
std::string next_item(std::string_view& text) {
    std::string item;
    while (!text.empty()) {
        char c = text.front();
        text.remove_prefix(1);
        if (c == ',') {
            if (text.empty() || text.front() != ',') return item;
            text.remove_prefix(1);
        }
        item += c;
    }
    return item;
}
} // namespace

Properties parse_list(std::string_view text, std::string_view implied) {
    Properties list;
    for (bool first = true; !text.empty(); first = false) {
        std::string item = next_item(text);
        std::size_t equals = item.find('=');
        if (equals != std::string::npos)
            list.items.emplace_back(item.substr(0, equals), item.substr(equals + 1));
        else if (first && !implied.empty())
            list.items.emplace_back(implied, item);
        else if (item.starts_with("no") && item.size() > 2)
            list.items.emplace_back(item.substr(2), "off");
        else if (!item.empty())
            list.items.emplace_back(item, "on");
    }
    return list;
}

Result<void> check_known(Properties const& list, std::initializer_list<std::string_view> known, std::string_view of) {
    for (auto const& [key, value] : list.items) {
        if (std::ranges::find(known, key) != known.end()) continue;
        std::string meant = did_you_mean(key, std::span(known.begin(), known.end()));
        if (of.empty()) return error("Invalid parameter '{}'{}", key, meant);
        return error("Parameter '{}.{}' is unexpected{}", of, key, meant);
    }
    return {};
}

Result<bool> parse_bool(std::string_view name, std::string_view value) {
    for (std::string_view yes : {"on", "yes", "true", "y"})
        if (value == yes) return true;
    for (std::string_view no : {"off", "no", "false", "n"})
        if (value == no) return false;
    return error("Parameter '{}' expects 'on' or 'off'", name);
}

Result<bool> bool_of(Properties const& list, std::string_view name, bool otherwise) {
    std::string const* value = list.find(name);
    return value ? parse_bool(name, *value) : Result<bool>(otherwise);
}

Result<std::uint64_t> parse_number(std::string_view name, std::string_view value) {
    std::string_view digits = value;
    int base = 10;
    if (digits.starts_with("0x") || digits.starts_with("0X"))
        base = 16, digits.remove_prefix(2);
    else if (digits.size() > 1 && digits.front() == '0')
        base = 8, digits.remove_prefix(1);
    std::uint64_t number = 0;
    auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
    if (failure != std::errc{} || end != digits.data() + digits.size() || digits.empty())
        return error("Parameter '{}' expects a number", name);
    return number;
}

Result<std::uint64_t> parse_size(std::string_view name, std::string_view value, std::uint64_t default_unit) {
    Error bad = error("Parameter '{}' expects a non-negative number below 2^64\n"
                      "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                      "and exabytes, respectively.",
                      name);
    std::uint64_t unit = default_unit;
    std::string_view digits = value;
    if (digits.empty()) return bad;
    constexpr std::string_view suffixes = "BKMGTPE";
    bool hexadecimal = digits.starts_with("0x") || digits.starts_with("0X");
    char last = char(std::toupper(static_cast<unsigned char>(digits.back())));
    std::size_t power = suffixes.find(last);
    if (power != std::string_view::npos && !(hexadecimal && (last == 'B' || last == 'E'))) {
        unit = std::uint64_t(1) << (10 * power);
        digits.remove_suffix(1);
    }
    if (hexadecimal) {
        auto number = parse_number(name, digits);
        if (!number) return bad;
        auto bytes = checked_mul<std::uint64_t>(*number, unit);
        return bytes ? Result<std::uint64_t>(*bytes) : bad;
    }
    std::uint64_t whole = 0;
    char const* const end = digits.data() + digits.size();
    auto [at, failure] = std::from_chars(digits.data(), end, whole);
    if (failure != std::errc{}) return bad;
    auto bytes = checked_mul(whole, unit);
    if (!bytes) return bad;
    if (at == end) return *bytes;
    double fraction = 0;
    if (*at != '.' || at + 1 == end) return bad;
    auto [rest, fraction_failure] = std::from_chars(at, end, fraction, std::chars_format::fixed);
    if (fraction_failure != std::errc{} || rest != end) return bad;
    auto total = checked_add(*bytes, std::uint64_t(std::floor(fraction * double(unit))));
    return total ? Result<std::uint64_t>(*total) : bad;
}

bool is_help(std::string_view text) { return text == "help" || text == "?"; }

} // namespace vmm
