#include "block/tools/img/command.h"

#include "block/tools/common/objects.h"
#include "vmm/base/text.h"

#include <algorithm>
#include <cstdio>

namespace vmm::block {

namespace {
constexpr OptionRow help_row{"help", 'h', false}, object_row{"object", 0, true};
}

int run_img(Tool& tool, std::span<std::string const> words) {
    if (words.empty()) return tool.usage_error("Not enough arguments");
    // Options before the command.
    if (words[0] == "-h" || words[0] == "--help") {
        std::fputs(img_help(tool).c_str(), stdout);
        return 0;
    }
    if (words[0] == "-V" || words[0] == "--version") {
        std::fputs(version_text(tool.name()).c_str(), stdout);
        return 0;
    }
    if (words[0] == "-T" || words[0] == "--trace")
        return run_img(tool, words.subspan(std::min<std::size_t>(2, words.size())));
    if (words[0].starts_with("--trace=")) return run_img(tool, words.subspan(1));
    if (words[0].starts_with("-")) return tool.usage_error(fmt::format("unrecognized option '{}'", words[0]));
    std::vector<std::string_view> names;
    for (ImgCommand const& command : img_commands()) {
        if (command.name == words[0]) return command.run(tool, words.subspan(1));
        names.push_back(command.name);
    }
    return tool.usage_error(fmt::format("Command not found: {}{}", words[0], did_you_mean(words[0], names)));
}

ParsedCommand parse_command(Tool& tool, std::span<std::string const> words, std::span<OptionRow const> rows,
                            int error_status) {
    std::vector<OptionRow> all(rows.begin(), rows.end());
    all.push_back(help_row);
    all.push_back(object_row);
    ParsedCommand result;
    auto stop = [&](int status) {
        result.stop = true;
        result.status = status;
        return result;
    };
    Result<Arguments> parsed = Arguments::parse(words, all);
    if (!parsed.ok()) {
        tool.usage_error(parsed.error().message());
        return stop(error_status);
    }
    result.args = std::move(parsed).value();
    if (result.args.has('h')) {
        std::fputs(img_help(tool).c_str(), stdout);
        return stop(0);
    }
    for (std::string const& definition : result.args.values("object"))
        if (Result<void> added = add_object(tool, definition); !added.ok()) {
            tool.fail(added.error());
            return stop(error_status);
        }
    return result;
}

Result<bool> wants_json(Arguments const& args) {
    std::string const* output = args.value("output");
    if (!output || *output == "human") return false;
    if (*output == "json") return true;
    return error("--output must be used with human or json as argument.");
}

namespace {
// ",," is a comma within a value.
bool is_option_list(std::string_view text) {
    std::size_t const last = text.find_last_not_of(',');
    std::size_t const commas = text.size() - (last == std::string_view::npos ? 0 : last + 1);
    return !text.starts_with(',') && commas % 2 == 0;
}
} // namespace

Result<DriverOptions> driver_options(Arguments const& args) {
    DriverOptions result;
    for (std::string const& one : args.values('o')) {
        if (!is_option_list(one)) return error("Invalid option list: {}", one);
        result.given = true;
        if (!result.text.empty()) result.text += ',';
        result.text += one;
    }
    Result<OptionValues> parsed = OptionValues::parse(result.text);
    result.help = parsed.ok() && (parsed->has("help") || parsed->has("?"));
    return result;
}

std::string size_error_text(Error const& error) {
    if (error.message().find("expects a non-negative number below 2^64") == std::string::npos) return error.message();
    return error.message() + "\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                             "and exabytes, respectively.";
}

} // namespace vmm::block
