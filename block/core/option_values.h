// Options of `create`, `amend` and drivers: their schema and their parsed values.
#pragma once
#include "vmm/base/result.h"

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::block {

enum class OptionType : std::uint8_t { string, boolean, number, size };

// One option of a format's `create`. A format lists them in the order in which the "Formatting ..." line prints them;
// help
// (`-o help`) sorts by name. Static storage: a table of these is constexpr.
struct OptionSpec {
    std::string_view name;
    OptionType type;
    std::string_view help;
    std::string_view default_text =
        {}; // printed in "Formatting ..." and used when the option is not given; empty: none
    bool amendable = false;
};

// "64k", "1.5G", "0x200": bytes; suffixes b k M G T P E (1024s), either case. QEMU's message on failure:
// "Parameter 'NAME' expects a non-negative number below 2^64".
Result<std::uint64_t> parse_size(std::string_view text, std::string_view name);
// on/off/yes/no/true/false. "Parameter 'NAME' expects 'on' or 'off'".
Result<bool> parse_bool(std::string_view text, std::string_view name);

// Given option values by name, unvalidated text until read through a getter or check_against.
class OptionValues {
public:
    // Parses "a=b,c,d=x,,y": `c` alone means on, `noc` off, ",," is a comma. Later values win.
    static Result<OptionValues> parse(std::string_view text);

    void set(std::string name, std::string value) { values_[std::move(name)] = std::move(value); }
    void erase(std::string const& name) { values_.erase(name); }
    bool has(std::string const& name) const { return values_.contains(name); }
    bool empty() const { return values_.empty(); }
    std::map<std::string, std::string> const& all() const { return values_; }

    // "Invalid parameter 'x'" for a name that `specs` does not hold, or the type's message for a value that does not
    // parse.
    Result<void> check_against(std::span<OptionSpec const> specs) const;
    // The same for a driver's options at open, where a spec's name that ends in '.' stands for all beneath it; `driver`
    // is "Block format 'raw' does not" and the like.
    Result<void> check_open_options(std::span<OptionSpec const> specs, std::string_view driver) const;
    // Adds the defaults of options that are not given.
    void add_defaults(std::span<OptionSpec const> specs);

    std::optional<std::string> text(std::string const& name) const;
    // The value, `fallback` when absent, or an error naming the option.
    Result<std::uint64_t> size(std::string const& name, std::uint64_t fallback) const;
    Result<std::uint64_t> number(std::string const& name, std::uint64_t fallback) const;
    Result<bool> boolean(std::string const& name, bool fallback) const;
    std::string text_or(std::string const& name, std::string fallback) const;

    // The sub-options whose names begin with "prefix.", without it.
    OptionValues sub(std::string_view prefix) const;

private:
    std::map<std::string, std::string> values_;
};

// A second line for a message about an unknown `word`, "\nDid you mean 'X'?", or nothing when no name is near it.
std::string suggestion(std::string_view word, std::span<std::string_view const> names);

// "Formatting 'x', fmt=qcow2 cluster_size=65536 ... size=1073741824 ...": given and default values in table order.
std::string formatting_line(std::string_view filename, std::string_view format, std::span<OptionSpec const> specs,
                            OptionValues const& values);
// The body of `create -f FMT -o help` after "Supported FMT options:", one line an option, sorted by name.
std::string option_help(std::span<OptionSpec const> specs);

} // namespace vmm::block
