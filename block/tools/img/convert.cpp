// vmm-img convert
#include "block/core/capabilities.h"
#include "block/tools/img/copy.h"
#include "block/tools/img/creation.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace vmm::block {

namespace {

constexpr std::size_t max_in_flight = 16;

struct ConvertRequest {
    std::vector<ImageRequest> sources;
    std::string target;
    std::string target_format = "raw";
    bool target_image_opts = false, target_exists = false; // --target-image-opts, -n
    bool target_is_zero = false;
    std::string options;
    std::string backing, backing_format; // -B, -F
    std::string snapshot;                // -l
    CacheMode cache = CacheMode::unsafe;
    bool bitmaps = false, skip_broken_bitmaps = false;
    bool strict = false;
    Progress::Setup progress;
    CopyOptions copy;
};

// "snapshot.id=1,snapshot.name=x" or a plain id or name.
std::string snapshot_name(std::string const& text) {
    if (!text.starts_with("snapshot.")) return text;
    Result<OptionValues> values = OptionValues::parse(text);
    if (!values.ok()) return text;
    return values->text("snapshot.id").value_or(values->text_or("snapshot.name", text));
}

using Images = std::vector<std::unique_ptr<Image>>;

Task<Result<void>> close_all(Images images) {
    Result<void> first;
    for (auto& image : images) {
        Result<void> closed = co_await close_image(std::move(image));
        if (!closed.ok() && first.ok()) first = closed;
    }
    co_return first;
}

Task<Result<void>> open_sources(Tool& tool, ConvertRequest const& request, Images& sources) {
    for (ImageRequest const& one : request.sources) {
        CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, one));
        if (!request.snapshot.empty()) {
            Snapshots* snapshots = image->capabilities().snapshots;
            if (request.sources.size() > 1) co_return error("No support for concatenating multiple snapshot");
            if (!snapshots) co_return error("Failed to load snapshot: Can't find snapshot");
            Result<void> loaded = co_await snapshots->load_read_only(snapshot_name(request.snapshot));
            if (!loaded.ok())
                co_return error("Failed to load snapshot: {}", loaded.error().errno_value() == ENOENT
                                                                   ? "Can't find snapshot"
                                                                   : loaded.error().message());
        }
        sources.push_back(std::move(image));
    }
    co_return Result<void>{};
}

// The layer of the source's chain that is to be the target's backing file: content from there down is left out.
Image* find_base(Image& source, std::string const& backing) {
    auto canonical = [](std::string const& name) {
        char* resolved = realpath(name.c_str(), nullptr);
        std::string result = resolved ? resolved : name;
        std::free(resolved);
        return result;
    };
    std::string wanted = canonical(backing);
    for (Image* layer = source.backing(); layer; layer = layer->backing())
        if (canonical(layer->filename()) == wanted) return layer;
    return nullptr;
}

Task<Result<void>> create_target(Tool& tool, ConvertRequest const& request, std::uint64_t size) {
    CreationPlan plan;
    plan.filename = request.target;
    plan.format = request.target_format;
    plan.options = request.options;
    plan.backing = request.backing;
    plan.backing_format = request.backing_format;
    plan.strict = request.strict;
    plan.cache = request.cache;
    plan.size = size; // an image is never cut short
    plan.size_wins = true;
    CO_TRY_ASSIGN(Creator creator, find_creator(tool, plan.format));
    CO_TRY_ASSIGN(std::vector<OptionSpec> specs, creation_options(tool, creator, plan.filename));
    CO_TRY_ASSIGN(OptionValues given, OptionValues::parse(plan.options));
    CO_TRY(given.check_against(specs)); // said without a prefix
    Result<std::uint64_t> created = co_await create_image_file(tool, std::move(plan));
    if (!created.ok())
        co_return created.error().with_prefix(
            fmt::format("{}: error while converting {}", request.target, request.target_format));
    co_return Result<void>{};
}

Task<Result<void>> copy_bitmaps(Image& source, Image& target, bool skip_broken) {
    DirtyBitmaps* from = source.capabilities().bitmaps;
    DirtyBitmaps* to = target.capabilities().bitmaps;
    for (BitmapInfo const& bitmap : from->bitmaps()) {
        if (!bitmap.persistent) continue;
        if (bitmap.in_use) {
            if (skip_broken) continue;
            co_return error("Cannot copy inconsistent bitmap '{}'", bitmap.name);
        }
        BitmapInfo copy = bitmap;
        copy.enabled = false;
        CO_TRY(co_await to->add_bitmap(copy));
        for (std::uint64_t at = 0; at < source.size_bytes();) {
            CO_TRY_ASSIGN(DirtyBitmaps::Stretch stretch, co_await from->bitmap_status(bitmap.name, at));
            if (stretch.length == 0) break;
            if (stretch.dirty) {
                CO_TRY(co_await to->mark_dirty(bitmap.name, at, stretch.length));
            }
            at += stretch.length;
        }
        if (bitmap.enabled) {
            CO_TRY(co_await to->set_bitmap_enabled(bitmap.name, true));
        }
    }
    co_return Result<void>{};
}

bool fresh_target_is_zero(Tool& tool, ConvertRequest const& request) {
    return request.target_exists
               ? request.target_is_zero
               : request.backing.empty() && new_image_is_zero(tool, request.target, request.target_format);
}

Task<Result<void>> check_sources(ConvertRequest const& request, Images const& sources) {
    if (!request.backing.empty() && sources.size() > 1)
        co_return error("Having a backing file for the target makes no sense when concatenating multiple input images");
    if (request.bitmaps) {
        if (sources.size() > 1) co_return error("Copying bitmaps only possible with single source");
        if (!sources[0]->capabilities().bitmaps) co_return error("Source lacks bitmap support");
    }
    co_return Result<void>{};
}

// What of `-o` is needed again to open the target it made.
Result<OptionValues> secrets_of(std::string const& create_options) {
    OptionValues secrets;
    OptionValues given = TRY(OptionValues::parse(create_options));
    for (auto const& [name, value] : given.all())
        if (name == "key-secret" || name.ends_with(".key-secret")) secrets.set(name, value);
    return secrets;
}

// Opens the target, which exists by now, and copies. `files`: those it consists of.
Task<Result<void>> fill_target(Tool& tool, ConvertRequest& request, Images const& sources, std::uint64_t size,
                               std::vector<std::string>& files, Progress& progress, Interrupts& interrupts) {
    ImageRequest open{.name = request.target};
    open.format = request.target_image_opts ? "" : request.target_format;
    open.image_opts = request.target_image_opts;
    open.writable = true;
    open.cache = request.cache;
    open.discard = true;
    if (!request.target_exists) {
        CO_TRY_ASSIGN(open.extra, secrets_of(request.options));
    }
    CO_TRY_ASSIGN(std::unique_ptr<Image> target, co_await open_for_tool(tool, open));
    files = co_await files_of(*target, request.target);
    Result<void> result;
    if (target->size_bytes() < size) result = error("output file is smaller than input file");
    if (result.ok() && request.copy.compress && !target->capabilities().compressed)
        result = error("error while writing at byte 0: Operation not supported"); // the format can, this image cannot
    if (result.ok() && request.bitmaps && !target->capabilities().bitmaps)
        result = error("Format driver '{}' does not support bitmaps", target->format_name());
    if (result.ok()) {
        std::vector<Image*> from;
        for (auto const& source : sources) from.push_back(source.get());
        request.copy.length = size;
        request.copy.target_is_zero = fresh_target_is_zero(tool, request);
        if (!request.backing.empty()) request.copy.source_base = find_base(*from[0], request.backing);
        CopyJob job(tool, from, *target, request.copy, progress, interrupts);
        result = co_await job.run();
        // Beyond the input, a target that was there before keeps its content.
        if (result.ok() && request.bitmaps)
            result = co_await copy_bitmaps(*from[0], *target, request.skip_broken_bitmaps);
        if (result.ok()) result = co_await target->flush();
    }
    Result<void> closed = co_await close_after(std::move(target), result);
    co_return closed;
}

Task<Result<void>> convert(Tool& tool, ConvertRequest& request,
                           std::function<Result<void>(ConvertRequest&)> check_target, Progress& progress,
                           Interrupts& interrupts) {
    Images sources;
    Result<void> result = co_await open_sources(tool, request, sources);
    if (result.ok()) result = check_target(request);
    if (result.ok()) result = co_await check_sources(request, sources);
    bool created = false;
    std::vector<std::string> files{request.target};
    if (result.ok()) {
        std::uint64_t size = 0;
        for (auto const& source : sources) size += source->size_bytes();
        if (!request.target_exists) {
            result = co_await create_target(tool, request, size);
            created = result.ok();
        }
        if (result.ok()) result = co_await fill_target(tool, request, sources, size, files, progress, interrupts);
    }
    if (!result.ok() && created) remove_unfinished(files);
    Result<void> closed = co_await close_all(std::move(sources));
    if (result.ok() && !closed.ok()) co_return closed;
    co_return result;
}

constexpr OptionRow rows[] = {{"", 'f', true},   {"", 'O', true},
                              {"", 'B', true},   {"", 'F', true},
                              {"", 'C'},         {"", 'c'},
                              {"", 'e'},         {"", '6'},
                              {"", 'o', true},   {"", 'l', true},
                              {"", 'S', true},   {"", 'p'},
                              {"", 't', true},   {"", 'T', true},
                              {"", 'q'},         {"", 'n'},
                              {"", 'm', true},   {"", 'W'},
                              {"", 'r', true},   {"force-share", 'U'},
                              {"image-opts", 0}, {"target-image-opts", 0},
                              {"salvage", 0},    {"target-is-zero", 0},
                              {"bitmaps", 0},    {"skip-broken-bitmaps", 0},
                              {"strict", 0}};

Result<void> parse_copy_options(Tool& tool, Arguments const& args, CopyOptions& copy) {
    if (std::string const* text = args.value('m')) {
        char* end = nullptr;
        long n = std::strtol(text->c_str(), &end, 10);
        if (text->empty() || *end || n < 1 || std::size_t(n) > max_in_flight)
            return error("Invalid number of coroutines. Allowed number of coroutines is between 1 and {}",
                         max_in_flight);
        copy.in_flight = std::size_t(n);
    }
    if (std::string const* text = args.value('S')) {
        copy.sparse_bytes = TRY(parse_byte_count(tool.name(), "buffer size for sparse output", *text));
        constexpr std::uint64_t largest = 2 << 20;
        if (copy.sparse_bytes % 512 != 0 || copy.sparse_bytes > largest)
            return error("Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to {}. "
                         "Select 0 to disable sparse detection (fully allocates output).",
                         largest);
        if (args.has('C')) return error("Cannot enable copy offloading when -S is used");
    }
    if (std::string const* text = args.value('r'))
        copy.bytes_per_second = TRY(parse_byte_count(tool.name(), "rate limit", *text));
    copy.compress = args.has('c');
    copy.out_of_order = args.has('W');
    copy.salvage = args.has("salvage");
    if (copy.salvage && args.has('C')) return error("Cannot use copy offloading in salvaging mode");
    return {};
}

// Combinations that make no sense.
Result<void> check_combinations(Arguments const& args, ConvertRequest const& request) {
    if (args.has("skip-broken-bitmaps") && !request.bitmaps)
        return error("Use of --skip-broken-bitmaps requires --bitmaps");
    if (request.target_exists && args.has('o')) return error("-o has no effect when skipping image creation");
    if (request.target_image_opts && !request.target_exists)
        return error("--target-image-opts requires use of -n flag");
    if (request.target_is_zero && !request.target_exists) return error("--target-is-zero requires use of -n flag");
    return {};
}

// What depends on the target's format; QEMU looks at it after the sources.
Result<void> check_target_options(Tool& tool, Arguments const& args, ConvertRequest& request) {
    request.cache = TRY(parse_cache_option(args.value('t'), CacheMode::unsafe));
    if (request.target_exists) return {};
    Creator const creator = TRY(find_creator(tool, request.target_format));
    if (!request.backing.empty() && !creator.has_option("backing_file"))
        return error("Backing file not supported for file format '{}'", request.target_format);
    if (!request.backing_format.empty() && !creator.has_option("backing_fmt"))
        return error("Backing file format not supported for file format '{}'", request.target_format);
    if (request.strict && !request.backing.empty() && request.backing_format.empty())
        return error("Use of backing file requires explicit backing format");
    if (request.copy.compress && !(creator.format && creator.format->supports_compression))
        return error("Compression not supported for this file format");
    return {};
}

Result<ConvertRequest> parse_request(Tool& tool, Arguments const& args) {
    ConvertRequest request;
    TRY(parse_copy_options(tool, args, request.copy));
    CacheMode source_cache = TRY(parse_cache_option(args.value('T'), CacheMode::writeback, true));
    request.target_format = args.value_or('O', "raw");
    request.options = TRY(driver_options(args)).text;
    request.target_exists = args.has('n');
    request.target_image_opts = args.has("target-image-opts");
    request.target_is_zero = args.has("target-is-zero");
    request.backing = args.value_or('B', "");
    request.backing_format = args.value_or('F', "");
    request.snapshot = args.value_or('l', "");
    request.bitmaps = args.has("bitmaps");
    request.skip_broken_bitmaps = args.has("skip-broken-bitmaps");
    request.strict = args.has("strict");
    request.progress.printed = args.has('p') && !args.has('q');
    request.progress.quiet = args.has('q');
    std::vector<std::string> const& names = args.operands();
    if (names.size() < 2) return error("Must specify image file name");
    request.target = names.back();
    for (std::size_t i = 0; i + 1 < names.size(); ++i) {
        ImageRequest source{.name = names[i]};
        source.format = args.value_or('f', "");
        source.image_opts = args.has("image-opts");
        source.force_share = args.has('U');
        source.cache = source_cache;
        request.sources.push_back(std::move(source));
    }
    return request;
}

} // namespace

int img_convert(Tool& tool, std::span<std::string const> words) {
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    if (Result<DriverOptions> options = driver_options(args); options.ok() && options->help)
        return print_creation_help(tool, args.value_or('O', "raw"),
                                   args.operands().size() > 1 ? args.operands().back() : "");
    Result<ConvertRequest> request = parse_request(tool, args);
    if (!request.ok()) return tool.fail(request.error());
    Progress* shown = nullptr;
    Interrupts interrupts(tool.loop(), [&shown] {
        if (shown) shown->print_now();
    });
    Result<void> result;
    {
        Progress progress(request->progress);
        shown = &progress;
        result = check_combinations(args, *request);
        if (result.ok()) {
            std::function<Result<void>(ConvertRequest&)> check_target = [&](ConvertRequest& r) {
                return check_target_options(tool, args, r);
            };
            result = tool.run(convert(tool, *request, check_target, progress, interrupts));
        }
        if (result.ok()) progress.finish();
        shown = nullptr;
    }
    if (!result.ok()) tool.fail(size_error_text(result.error()));
    interrupts.die_if_pending();
    return result.ok() ? 0 : 1;
}

} // namespace vmm::block
