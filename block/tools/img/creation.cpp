#include "block/tools/img/creation.h"

#include "block/core/capabilities.h"
#include "block/core/image.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

namespace vmm::block {

namespace {

// Formats QEMU reads but cannot create, and which we may not even know: the same answer for all.
constexpr std::array<std::string_view, 7> read_only_formats = {"bochs", "cloop",     "dmg", "vvfat",
                                                               "cow",   "parallels", "qed"};

// Size and format of the backing file, opened read-only.
struct BackingFacts {
    std::uint64_t size = 0;
    std::string format;
};
Task<Result<BackingFacts>> look_at_backing(Tool& tool, std::string overlay, std::string backing, std::string format) {
    OpenOptions options;
    options.filename = resolve_backing_filename(overlay, backing);
    options.format = format;
    options.read_only = true;
    options.quiet_probe = true;
    Result<std::unique_ptr<Image>> opened = co_await open_image(tool.context(), options);
    if (!opened.ok())
        co_return Error(opened.error().message() + "\nCould not open backing image.", opened.error().errno_value());
    BackingFacts facts{(*opened)->size_bytes(), std::string((*opened)->format_name())};
    CO_TRY(co_await close_image(std::move(opened).value()));
    co_return facts;
}

Result<void> take_backing_options(CreationPlan& plan, OptionValues& values, Creator const& creator) {
    if (!plan.backing.empty()) values.set("backing_file", plan.backing);
    if (!plan.backing_format.empty()) values.set("backing_fmt", plan.backing_format);
    plan.backing = values.text_or("backing_file", "");
    plan.backing_format = values.text_or("backing_fmt", "");
    bool const fits = creator.has_option("backing_file");
    if (!plan.backing.empty() && !fits) return error("Backing file not supported for file format '{}'", plan.format);
    if (plan.backing.empty() && !plan.backing_format.empty() && !fits)
        return error("Backing format not supported for file format '{}'", plan.format);
    if (!plan.backing.empty() && plan.backing == plan.filename)
        return error("Error: Trying to create an image with the same filename as the backing file");
    return {};
}

// Fills in size and backing format from the backing image.
Task<Result<void>> use_backing(Tool& tool, CreationPlan& plan, OptionValues& values, bool has_size) {
    if (!plan.backing.empty() && plan.trust_backing && plan.backing_format.empty())
        co_return error("Backing file specified without backing format");
    if (plan.backing.empty() || plan.trust_backing) co_return Result<void>{};
    CO_TRY_ASSIGN(BackingFacts facts, co_await look_at_backing(tool, plan.filename, plan.backing, plan.backing_format));
    if (plan.backing_format.empty()) {
        if (plan.strict)
            co_return error("Backing file specified without backing format\nDetected format of {}.", facts.format);
        tool.warn(fmt::format("Backing file specified without backing format; using the detected format {0} (say so "
                              "with -F {0})",
                              facts.format));
        values.set("backing_fmt", facts.format);
        plan.backing_format = facts.format;
    }
    if (!has_size) values.set("size", std::to_string(facts.size));
    co_return Result<void>{};
}

} // namespace

bool Creator::has_option(std::string_view name) const {
    return std::ranges::find(options(), name, &OptionSpec::name) != options().end();
}

Result<Creator> find_creator(Tool& tool, std::string_view name) {
    FormatTable const& formats = tool.context().formats;
    Creator creator{formats.find(name), nullptr};
    if (!creator.format) creator.protocol = formats.find_protocol(name);
    bool known =
        creator.format || creator.protocol || std::ranges::find(read_only_formats, name) != read_only_formats.end();
    if (!known) return error("Unknown file format '{}'{}", name, formats.suggest(name));
    bool able = creator.format ? creator.format->create != nullptr : creator.protocol && creator.protocol->create;
    if (!able) return error("Format driver '{}' does not support image creation", name);
    return creator;
}

Result<std::vector<OptionSpec>> creation_options(Tool& tool, Creator const& creator, std::string_view filename) {
    std::vector<OptionSpec> specs(creator.options().begin(), creator.options().end());
    if (filename.empty()) return specs;
    Protocol const* protocol = TRY(tool.context().formats.protocol_for(filename));
    if (!protocol->create) return error("Protocol driver '{}' does not support image creation", protocol->name);
    for (OptionSpec const& spec : protocol->create_options)
        if (!creator.has_option(spec.name)) specs.push_back(spec);
    return specs;
}

int print_creation_help(Tool& tool, std::string_view format, std::string_view filename) {
    Result<Creator> creator = find_creator(tool, format);
    if (!creator.ok()) return tool.fail(creator.error());
    Result<std::vector<OptionSpec>> specs = creation_options(tool, *creator, filename);
    if (!specs.ok()) return tool.fail(specs.error());
    std::string lines = option_help(*specs);
    if (filename.empty())
        std::printf("Supported %s options:\n%s\nThe protocol level may support further options.\n"
                    "Specify the target filename to include those options.\n",
                    std::string(format).c_str(), lines.c_str());
    else
        std::printf("Supported options:\n%s", lines.c_str());
    return 0;
}

bool new_image_is_zero(Tool& tool, std::string_view filename, std::string_view format) {
    if (format == "luks") return false;
    Result<Protocol const*> protocol = tool.context().formats.protocol_for(filename);
    bool const file = protocol.ok() && (*protocol)->name == "file";
    return file ||
           (format != "raw" && format != "vpc" && format != "vmdk" && !tool.context().formats.find_protocol(format));
}

Task<Result<std::uint64_t>> create_image_file(Tool& tool, CreationPlan plan) {
    CO_TRY_ASSIGN(Creator creator, find_creator(tool, plan.format));
    CO_TRY_ASSIGN(std::vector<OptionSpec> specs, creation_options(tool, creator, plan.filename));
    CO_TRY_ASSIGN(OptionValues values, OptionValues::parse(plan.options));
    CO_TRY(values.check_against(specs));
    CO_TRY(take_backing_options(plan, values, creator));
    if (plan.size && values.has("size") && !plan.size_wins)
        co_return error("The image size must be specified only once");
    if (plan.size) values.set("size", std::to_string(*plan.size));
    CO_TRY(co_await use_backing(tool, plan, values, values.has("size")));
    if (!values.has("size")) co_return error("Image creation needs a size parameter");
    CO_TRY_ASSIGN(std::uint64_t size, values.size("size", 0));
    if (size > std::uint64_t(INT64_MAX)) co_return error("Image size must be less than 8 EiB!");
    if (plan.announce) {
        std::printf("%s\n", formatting_line(plan.filename, plan.format, specs, values).c_str());
        std::fflush(stdout);
    }
    if (plan.backing.empty() && !plan.backing_format.empty())
        co_return error("Backing format cannot be used without backing file");
    if (std::string where = mount_point_of(local_path(plan.filename)); !where.empty())
        co_return error("'{}' is a disk that is in use: it is mounted on '{}'; unmount it first", plan.filename, where);
    constexpr std::uint64_t sector = 512;
    CreateRequest request;
    request.filename = plan.filename;
    request.size_bytes = (size + sector - 1) / sector * sector; // sizes are whole sectors everywhere
    for (auto const& [name, value] : values.all())
        (creator.has_option(name) ? request.options : request.file_options).set(name, value);
    request.options.add_defaults(creator.options());
    request.options.set("size", std::to_string(request.size_bytes));
    request.cache = plan.cache;
    std::uint64_t created = request.size_bytes;
    if (creator.format) {
        CO_TRY(co_await creator.format->create(tool.context(), std::move(request)));
    } else {
        CO_TRY(co_await creator.protocol->create(tool.context(), request.filename, created, std::move(values)));
    }
    co_return created;
}

Task<std::vector<std::string>> files_of(Image& image, std::string name) {
    std::vector<std::string> files{std::move(name)};
    InfoSource* source = image.capabilities().info;
    if (!source) co_return files;
    Result<FormatInfo> info = co_await source->format_info();
    if (!info.ok()) co_return files;
    Value const* extents = info->specific_data.find("extents");
    if (!extents || !extents->as_list()) co_return files;
    for (Value const& extent : *extents->as_list())
        if (Value const* path = extent.find("filename"); path && path->as_string()) files.push_back(*path->as_string());
    co_return files;
}

void remove_unfinished(std::span<std::string const> files) {
    struct stat status {};
    for (std::string const& name : files)
        if (std::string path = local_path(name); stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode))
            unlink(path.c_str());
}

} // namespace vmm::block
