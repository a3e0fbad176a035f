// vmm-img measure
#include "block/core/chain.h"
#include "block/core/value.h"
#include "block/tools/img/command.h"
#include "block/tools/img/creation.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace vmm::block {

namespace {

constexpr std::uint64_t sector_bytes = 512;
constexpr std::string_view any_file = "file"; // the target is not known: a file takes the most options

struct MeasureRequest {
    ImageRequest image; // empty name: `size` counts
    std::uint64_t size = 0;
    std::string target_format = "raw", options, snapshot;
};

// Bytes of the target's clusters that would hold data.
Task<Result<std::uint64_t>> used_bytes(Image& image, std::uint64_t cluster) {
    std::uint64_t clusters = 0, next_cluster = 0;
    for (std::uint64_t at = 0; at < image.size_bytes();) {
        CO_TRY_ASSIGN(BlockStatus status, co_await chain_status(image, at, image.size_bytes() - at));
        if (!status.zero) {
            std::uint64_t first = std::max(at / cluster, next_cluster), end = div_ceil(at + status.length, cluster);
            if (end > first) clusters += end - first;
            next_cluster = std::max(next_cluster, end);
        }
        at += status.length;
    }
    co_return std::min(clusters * cluster, align_up(image.size_bytes(), sector_bytes));
}

// What qcow2 needs to keep the source's bitmaps: for each its data and table in whole clusters, and one directory.
std::uint64_t bitmap_bytes(DirtyBitmaps& bitmaps, std::uint64_t size, std::uint64_t cluster) {
    std::uint64_t total = 0, directory = 0;
    constexpr std::uint64_t entry_bytes = 24, table_entry_bytes = 8, bits_per_byte = 8;
    for (BitmapInfo const& bitmap : bitmaps.bitmaps()) {
        if (!bitmap.persistent || bitmap.granularity_bytes == 0) continue;
        std::uint64_t bytes = div_ceil(div_ceil(size, std::uint64_t(bitmap.granularity_bytes)), bits_per_byte);
        std::uint64_t clusters = div_ceil(bytes, cluster);
        total += clusters * cluster + align_up(clusters * table_entry_bytes, cluster);
        directory += align_up(entry_bytes + bitmap.name.size(), table_entry_bytes);
    }
    return total + align_up(directory, cluster);
}

// A LUKS header cannot be planned without the passphrase it is for, says QEMU.
Result<void> check_secret(Tool& tool, std::string_view format, OptionValues const& options) {
    std::string prefix = format == "luks" ? "" : "encrypt.";
    if (format != "luks" && options.text_or("encrypt.format", "") != "luks") return {};
    std::string id = options.text_or(prefix + "key-secret", "");
    if (id.empty()) return error("Parameter '{}key-secret' is required for cipher", prefix);
    if (!tool.context().secrets) return error("No secret with id '{}'", id);
    TRY(tool.context().secrets->find(id));
    return {};
}

Task<Result<Format::Measure>> measure(Tool& tool, MeasureRequest request) {
    Format const* format = tool.context().formats.find(request.target_format);
    if (!format && !tool.context().formats.find_protocol(request.target_format))
        co_return error("Unknown file format '{}'{}", request.target_format,
                        tool.context().formats.suggest(request.target_format));
    if (!format || !format->measure)
        co_return error("Block driver '{}' does not support size measurement", request.target_format);
    CO_TRY_ASSIGN(OptionValues options, OptionValues::parse(request.options));
    CO_TRY_ASSIGN(std::vector<OptionSpec> specs, creation_options(tool, Creator{format, nullptr}, any_file));
    Result<void> valid = options.check_against(specs);
    if (!valid.ok())
        co_return error("{}\n{}: Invalid options for file format '{}'", valid.error().message(), tool.name(),
                        request.target_format);
    CO_TRY(check_secret(tool, request.target_format, options));
    options.add_defaults(format->create_options);
    std::uint64_t cluster = sector_bytes;
    if (options.has("cluster_size")) {
        CO_TRY_ASSIGN(cluster, options.size("cluster_size", sector_bytes));
        if (!is_power_of_two(cluster)) cluster = sector_bytes; // the format says what is wrong with it
    }
    if (request.image.name.empty()) {
        Result<Format::Measure> bare = format->measure(align_up(request.size, sector_bytes), 0, options);
        if (bare.ok()) bare->has_bitmaps = false; // only a source can have some
        co_return bare;
    }
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request.image));
    if (!request.snapshot.empty()) {
        Snapshots* snapshots = image->capabilities().snapshots;
        Result<void> loaded = Error("", ENOENT);
        if (snapshots) loaded = co_await snapshots->load_read_only(request.snapshot);
        if (!loaded.ok()) co_return error("Failed to load snapshot: Can't find snapshot");
    }
    CO_TRY_ASSIGN(std::uint64_t used, co_await used_bytes(*image, cluster));
    if (options.has("backing_file")) used = image->size_bytes(); // even zeroes may have to hide what is in there
    Result<Format::Measure> result = format->measure(align_up(image->size_bytes(), sector_bytes), used, options);
    DirtyBitmaps* bitmaps = image->capabilities().bitmaps;
    if (result.ok()) result->has_bitmaps &= bitmaps != nullptr;
    if (result.ok() && result->has_bitmaps) {
        result->bitmaps = bitmap_bytes(*bitmaps, image->size_bytes(), cluster);
    }
    Result<Format::Measure> closed = co_await close_after(std::move(image), result);
    co_return closed;
}

} // namespace

int img_measure(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'f', true},   {"", 'l', true},     {"", 'o', true},      {"", 'O', true},
                                  {"size", 0, true}, {"output", 0, true}, {"force-share", 'U'}, {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    MeasureRequest request;
    std::string const* size = args.value("size");
    if (size) {
        Result<std::uint64_t> bytes = parse_byte_count(tool.name(), "image size", *size);
        if (!bytes.ok()) return tool.fail(bytes.error());
        request.size = *bytes;
    }
    Result<bool> json = wants_json(args);
    if (!json.ok()) return tool.fail(json.error());
    if (args.operands().size() > 1) return tool.fail("At most one filename argument is allowed.");
    if (!args.operands().empty()) request.image.name = args.operands()[0];
    bool named = !request.image.name.empty();
    if (!named && (args.has("image-opts") || args.has('f') || args.has('l')))
        return tool.fail("--image-opts, -f, and -l require a filename argument.");
    if (!named && !size) return tool.fail("Either --size N or one filename must be specified.");
    if (named && size) return tool.fail("--size N cannot be used together with a filename.");
    request.image.format = args.value_or('f', "");
    request.image.image_opts = args.has("image-opts");
    request.image.force_share = args.has('U');
    request.target_format = args.value_or('O', "raw");
    Result<DriverOptions> options = driver_options(args);
    if (!options.ok()) return tool.fail(options.error());
    request.options = options->text;
    request.snapshot = args.value_or('l', "");
    Result<Format::Measure> result = tool.run(measure(tool, std::move(request)));
    if (!result.ok()) return tool.fail(size_error_text(result.error()));
    if (*json) {
        Value v;
        if (result->has_bitmaps) v.set("bitmaps", result->bitmaps);
        v.set("required", result->required).set("fully-allocated", result->fully_allocated);
        std::printf("%s\n", v.json().c_str());
        return 0;
    }
    auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    std::printf("required size: %llu\nfully allocated size: %llu\n", n(result->required), n(result->fully_allocated));
    if (result->has_bitmaps) std::printf("bitmaps size: %llu\n", n(result->bitmaps));
    return 0;
}

} // namespace vmm::block
