// vmm-img create
#include "block/tools/img/creation.h"

#include <cstdio>

namespace vmm::block {

int img_create(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'f', true}, {"", 'F', true}, {"", 'b', true}, {"", 'e'},    {"", '6'},
                                  {"", 'o', true}, {"", 'q'},       {"", 'u'},       {"strict", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    if (args.has('e')) return tool.fail("option -e is deprecated, please use '-o encryption' instead!");
    if (args.has('6')) return tool.fail("option -6 is deprecated, please use '-o compat6' instead!");
    CreationPlan plan;
    plan.format = args.value_or('f', "raw");
    Result<DriverOptions> given = driver_options(args);
    if (!given.ok()) return tool.fail(given.error());
    DriverOptions const options = std::move(given).value();
    std::vector<std::string> const& operands = args.operands();
    if (options.help) return print_creation_help(tool, plan.format, operands.empty() ? "" : operands[0]);
    if (operands.empty()) return tool.usage_error("Expecting image file name");
    plan.filename = operands[0];
    if (operands.size() > 1) {
        Result<std::uint64_t> size = parse_byte_count(tool.name(), "image size", operands[1]);
        if (!size.ok()) return tool.fail(size.error());
        plan.size = *size;
    }
    if (operands.size() > 2) return tool.usage_error(fmt::format("Unexpected argument: {}", operands[2]));
    plan.options = options.text;
    plan.backing = args.value_or('b', "");
    plan.backing_format = args.value_or('F', "");
    plan.trust_backing = args.has('u');
    plan.strict = args.has("strict");
    plan.announce = !args.has('q');
    std::string filename = plan.filename;
    Result<std::uint64_t> created = tool.run(create_image_file(tool, std::move(plan)));
    if (!created.ok()) return tool.fail(fmt::format("{}: {}", filename, size_error_text(created.error())));
    return 0;
}

} // namespace vmm::block
