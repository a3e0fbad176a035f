#include "block/core/option_values.h"

#include "vmm/base/checked.h"
#include "vmm/base/text.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

namespace vmm::block {

namespace {

Error size_error(std::string_view name) {
    return error("Parameter '{}' expects a non-negative number below 2^64", name);
}

// The shift of a size suffix, or -1.
int suffix_shift(char c) {
    switch (c) {
    case 'b':
    case 'B': return 0;
    case 'k':
    case 'K': return 10;
    case 'm':
    case 'M': return 20;
    case 'g':
    case 'G': return 30;
    case 't':
    case 'T': return 40;
    case 'p':
    case 'P': return 50;
    case 'e':
    case 'E': return 60;
    default: return -1;
    }
}

OptionSpec const* find_spec(std::span<OptionSpec const> specs, std::string_view name) {
    auto found = std::ranges::find(specs, name, &OptionSpec::name);
    return found == specs.end() ? nullptr : &*found;
}

std::string suggest_option(std::string_view name, std::span<OptionSpec const> specs) {
    std::vector<std::string_view> names;
    for (OptionSpec const& spec : specs)
        if (!spec.name.ends_with('.')) names.push_back(spec.name);
    return suggestion(name, names);
}

Result<void> check_value(OptionValues const& values, OptionSpec const& spec, std::string const& name) {
    switch (spec.type) {
    case OptionType::string: break;
    case OptionType::boolean: TRY(values.boolean(name, false)); break;
    case OptionType::number: TRY(values.number(name, 0)); break;
    case OptionType::size: TRY(values.size(name, 0)); break;
    }
    return {};
}

} // namespace

std::string suggestion(std::string_view word, std::span<std::string_view const> names) {
    std::string_view best = nearest(word, names);
    return best.empty() ? "" : fmt::format("\nDid you mean '{}'?", best);
}

Result<std::uint64_t> parse_size(std::string_view text, std::string_view name) {
    std::string copy(text);
    if (copy.empty() || !(copy[0] >= '0' && copy[0] <= '9')) return size_error(name);
    char* end = nullptr;
    errno = 0;
    bool hex = copy.starts_with("0x") || copy.starts_with("0X");
    std::uint64_t whole = std::strtoull(copy.c_str(), &end, hex ? 16 : 10);
    if (errno) return size_error(name);
    double fraction = 0;
    if (*end == '.' && !hex) {
        char* start = end;
        fraction = std::strtod(start, &end);
        if (end == start || fraction < 0 || fraction >= 1) return size_error(name);
    }
    int shift = 0;
    if (*end) {
        shift = suffix_shift(*end++);
        if (shift < 0 || *end) return size_error(name);
    }
    auto scaled = checked_mul(whole, std::uint64_t(1) << shift);
    if (!scaled) return size_error(name);
    auto sum = checked_add(*scaled, std::uint64_t(std::round(fraction * std::ldexp(1.0, shift))));
    if (!sum || (fraction > 0 && shift == 0)) return size_error(name);
    return *sum;
}

Result<bool> parse_bool(std::string_view text, std::string_view name) {
    if (text == "on" || text == "yes" || text == "true" || text == "y") return true;
    if (text == "off" || text == "no" || text == "false" || text == "n") return false;
    return error("Parameter '{}' expects 'on' or 'off'", name);
}

Result<OptionValues> OptionValues::parse(std::string_view text) {
    OptionValues result;
    std::size_t at = 0;
    while (at < text.size()) {
        std::string item;
        for (; at < text.size(); ++at) {
            if (text[at] == ',') {
                if (at + 1 >= text.size() || text[at + 1] != ',') break;
                ++at;
            }
            item += text[at];
        }
        ++at; // the comma
        std::size_t equals = item.find('=');
        if (equals == 0) return error("Invalid parameter ''");
        if (item.empty()) continue;
        if (equals == std::string::npos && item.starts_with("no"))
            result.set(item.substr(2), "off");
        else if (equals == std::string::npos)
            result.set(item, "on");
        else
            result.set(item.substr(0, equals), item.substr(equals + 1));
    }
    return result;
}

Result<void> OptionValues::check_against(std::span<OptionSpec const> specs) const {
    for (auto const& [name, value] : values_) {
        OptionSpec const* spec = find_spec(specs, name);
        if (!spec) return error("Invalid parameter '{}'{}", name, suggest_option(name, specs));
        TRY(check_value(*this, *spec, name));
    }
    return {};
}

Result<void> OptionValues::check_open_options(std::span<OptionSpec const> specs, std::string_view driver) const {
    for (auto const& entry : values_) {
        std::string const& name = entry.first; // no structured binding: clang 14 cannot capture one in the lambda below
        OptionSpec const* spec = find_spec(specs, name);
        if (spec) TRY(check_value(*this, *spec, name));
        bool beneath = std::ranges::any_of(
            specs, [&](OptionSpec const& s) { return s.name.ends_with('.') && name.starts_with(s.name); });
        if (!spec && !beneath) return error("{} support the option '{}'{}", driver, name, suggest_option(name, specs));
    }
    return {};
}

void OptionValues::add_defaults(std::span<OptionSpec const> specs) {
    for (OptionSpec const& spec : specs)
        if (!spec.default_text.empty()) values_.emplace(spec.name, spec.default_text);
}

std::optional<std::string> OptionValues::text(std::string const& name) const {
    auto found = values_.find(name);
    return found == values_.end() ? std::nullopt : std::optional(found->second);
}
std::string OptionValues::text_or(std::string const& name, std::string fallback) const {
    return text(name).value_or(std::move(fallback));
}
Result<std::uint64_t> OptionValues::size(std::string const& name, std::uint64_t fallback) const {
    auto value = text(name);
    return value ? parse_size(*value, name) : Result<std::uint64_t>(fallback);
}
Result<std::uint64_t> OptionValues::number(std::string const& name, std::uint64_t fallback) const {
    auto value = text(name);
    if (!value) return fallback;
    char* end = nullptr;
    errno = 0;
    std::uint64_t parsed = std::strtoull(value->c_str(), &end, 0);
    if (errno || value->empty() || *end || (*value)[0] == '-') return error("Parameter '{}' expects a number", name);
    return parsed;
}
Result<bool> OptionValues::boolean(std::string const& name, bool fallback) const {
    auto value = text(name);
    return value ? parse_bool(*value, name) : Result<bool>(fallback);
}

OptionValues OptionValues::sub(std::string_view prefix) const {
    OptionValues result;
    std::string dotted = std::string(prefix) + ".";
    for (auto const& [name, value] : values_)
        if (name.starts_with(dotted)) result.set(name.substr(dotted.size()), value);
    return result;
}

std::string formatting_line(std::string_view filename, std::string_view format, std::span<OptionSpec const> specs,
                            OptionValues const& values) {
    std::string line = fmt::format("Formatting '{}', fmt={}", filename, format);
    for (OptionSpec const& spec : specs) {
        std::string name(spec.name);
        std::string shown = values.text_or(name, std::string(spec.default_text));
        if (shown.empty() && !values.has(name)) continue;
        if (spec.type == OptionType::size) {
            if (auto parsed = parse_size(shown, name); parsed.ok()) shown = std::to_string(*parsed);
        } else if (spec.type == OptionType::number) {
            if (auto parsed = values.number(name, 0); parsed.ok() && values.has(name)) shown = std::to_string(*parsed);
        }
        line += fmt::format(" {}={}", name, shown);
    }
    return line;
}

std::string option_help(std::span<OptionSpec const> specs) {
    std::vector<OptionSpec> sorted(specs.begin(), specs.end());
    std::ranges::sort(sorted, {}, &OptionSpec::name);
    std::string text;
    for (OptionSpec const& spec : sorted) {
        std::string_view type = spec.type == OptionType::string    ? "<str>"
                                : spec.type == OptionType::boolean ? "<bool (on/off)>"
                                : spec.type == OptionType::number  ? "<num>"
                                                                   : "<size>";
        text += fmt::format("  {:<22} - {}\n", fmt::format("{}={}", spec.name, type), spec.help);
    }
    return text;
}

} // namespace vmm::block
