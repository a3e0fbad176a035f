// vmm-img amend
#include "block/tools/img/command.h"
#include "block/tools/img/creation.h"

#include <algorithm>
#include <cstdio>

namespace vmm::block {

namespace {

std::vector<OptionSpec> amendable_options(Format const& format) {
    std::vector<OptionSpec> specs;
    std::ranges::copy_if(format.create_options, std::back_inserter(specs), &OptionSpec::amendable);
    specs.insert(specs.end(), format.amend_options.begin(), format.amend_options.end());
    return specs;
}

Result<void> check_changes(Format const& format, OptionValues const& changes) {
    std::vector<OptionSpec> allowed = amendable_options(format);
    for (auto const& [name, value] : changes.all()) {
        if (std::ranges::find(allowed, name, &OptionSpec::name) != allowed.end()) continue;
        bool at_creation =
            std::ranges::find(format.create_options, name, &OptionSpec::name) != format.create_options.end();
        return error("Invalid parameter '{}'{}", name,
                     at_creation ? "\nThis option is only supported for image creation" : "");
    }
    return changes.check_against(allowed);
}

Task<Result<void>> amend(Tool& tool, Image& image, std::string options, bool force, Progress& progress) {
    Amendable* amendable = image.capabilities().amendable;
    Format const* format = tool.context().formats.find(image.format_name());
    if (!amendable || !format)
        co_return error("Format driver '{}' does not support option amendment", image.format_name());
    Amendable::Request request;
    CO_TRY_ASSIGN(request.changes, OptionValues::parse(options));
    CO_TRY(check_changes(*format, request.changes));
    request.force = force;
    request.progress = [&progress](std::uint64_t done, std::uint64_t total) {
        progress.start(total);
        progress.set(done);
    };
    progress.start(1);
    Result<void> result = co_await amendable->amend(std::move(request));
    progress.finish(); // also of a failure
    co_return result;
}

// The format of an image, for `-o help`.
Task<Result<std::string>> format_of(Tool& tool, ImageRequest request) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request));
    Result<std::string> name(std::string(image->format_name()));
    Result<std::string> closed = co_await close_after(std::move(image), name);
    co_return closed;
}

Task<Result<void>> open_and_amend(Tool& tool, ImageRequest request, std::string options, bool force,
                                  Progress& progress) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request));
    Result<void> result = co_await amend(tool, *image, options, force, progress);
    Result<void> closed = co_await close_after(std::move(image), result);
    co_return closed;
}

int print_amend_help(Tool& tool, std::string const& name) {
    FormatTable const& formats = tool.context().formats;
    Format const* format = formats.find(name);
    if (!format && !formats.find_protocol(name))
        return tool.fail(fmt::format("Unknown file format '{}'{}", name, formats.suggest(name)));
    std::vector<OptionSpec> specs;
    if (format) specs = amendable_options(*format);
    if (specs.empty()) return tool.fail(fmt::format("Format driver '{}' does not support option amendment", name));
    std::printf("Amend options for '%s':\n%s", name.c_str(), option_help(specs).c_str());
    return 0;
}

} // namespace

int img_amend(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'o', true}, {"", 'f', true},   {"", 't', true}, {"", 'p'},
                                  {"", 'q'},       {"image-opts", 0}, {"force", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    Result<DriverOptions> given = driver_options(args);
    if (!given.ok()) return tool.fail(given.error());
    DriverOptions const options = std::move(given).value();
    if (!options.given) return tool.usage_error("Must specify options (-o)");
    if (options.help && args.has('f')) return print_amend_help(tool, *args.value('f'));
    if (args.operands().size() != 1) return tool.fail("Expecting one image file name");
    Result<CacheMode> cache = parse_cache_option(args.value('t'), CacheMode::writeback);
    if (!cache.ok()) return tool.fail(cache.error());
    ImageRequest request{.name = args.operands()[0]};
    request.format = args.value_or('f', "");
    request.image_opts = args.has("image-opts");
    request.writable = true;
    request.cache = *cache;
    if (options.help) {
        Result<std::string> format = tool.run(format_of(tool, request));
        return format.ok() ? print_amend_help(tool, *format) : tool.fail(format.error());
    }
    bool quiet = args.has('q');
    Result<void> result;
    {
        Progress progress({.printed = args.has('p') && !quiet, .quiet = quiet, .at_once = false});
        result = tool.run(open_and_amend(tool, request, options.text, args.has("force"), progress));
    }
    return result.ok() ? 0 : tool.fail(size_error_text(result.error()));
}

} // namespace vmm::block
