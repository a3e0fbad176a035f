// Arguments: a tool's command line, taken apart as getopt_long does (options anywhere, abbreviations, clusters).
#pragma once
#include "vmm/base/result.h"

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::block {

struct OptionRow {
    std::string_view name; // long name, or empty
    char letter = 0;       // short name, or 0
    bool has_value = false;
};

// The options in the order they were given, and the operands.
class Arguments {
public:
    // Errors: "unrecognized option '-Z'", "missing argument for option '-f'".
    static Result<Arguments> parse(std::span<std::string const> words, std::span<OptionRow const> rows);

    struct Given {
        OptionRow row; // its texts are the caller's (literals)
        std::string value;
    };
    std::vector<Given> const& given() const { return given_; }
    std::vector<std::string> const& operands() const { return operands_; }

    // By letter, or by long name for options that have no letter.
    bool has(char letter) const;
    bool has(std::string_view name) const;
    // The last value given; null: not given.
    std::string const* value(char letter) const;
    std::string const* value(std::string_view name) const;
    // All values in order.
    std::vector<std::string> values(char letter) const;
    std::vector<std::string> values(std::string_view name) const;
    std::string value_or(char letter, std::string_view fallback) const;

private:
    std::vector<Given> given_;
    std::vector<std::string> operands_;
};

// "64k", "1.5G": bytes. QEMU's two-line message: "Invalid WHAT specified. You may use k, M, ..."; `program` begins its
// second line.
Result<std::uint64_t> parse_byte_count(std::string_view program, std::string_view what, std::string_view text);

} // namespace vmm::block
