#include "block/core/factory.h"

#include "block/core/aligned_device.h"
#include "block/core/capabilities.h"
#include "block/core/common_options.h"
#include "vmm/base/log.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <climits>
#include <cstdlib>

namespace vmm::block {

Format const* FormatTable::find(std::string_view name) const {
    auto found = std::ranges::find(formats_, name, &Format::name);
    return found == formats_.end() ? nullptr : &*found;
}

Protocol const* FormatTable::find_protocol(std::string_view name) const {
    auto found = std::ranges::find(protocols_, name, &Protocol::name);
    return found == protocols_.end() ? nullptr : &*found;
}

Format const* FormatTable::probe(ConstBytes header, std::string_view filename) const {
    Format const* best = find("raw");
    int best_score = 1;
    for (Format const& format : formats_) {
        int score = format.probe ? format.probe(header, filename) : 0;
        if (score > best_score) {
            best = &format;
            best_score = score;
        }
    }
    return best;
}

namespace {

// Where the protocol name of "name:rest" ends, or npos for a path.
std::size_t protocol_colon(std::string_view filename) {
    std::size_t colon = filename.find(':');
    std::size_t slash = filename.find('/');
    return colon == std::string_view::npos || colon == 0 || slash < colon ? std::string_view::npos : colon;
}

std::string canonical(std::string const& filename) {
    char buffer[PATH_MAX];
    return realpath(filename.c_str(), buffer) ? buffer : filename;
}

// "json:{...}" names become option trees, and "driver", "file.filename" of a tree the fields they stand for.
Result<void> normalize(OpenOptions& options) {
    if (options.filename.starts_with("json:")) {
        OptionValues parsed = TRY(parse_json_options(std::string_view(options.filename).substr(5)));
        for (auto const& [name, value] : parsed.all()) options.tree.set(name, value);
        options.filename.clear();
    }
    if (auto driver = options.tree.text("driver")) {
        if (options.format.empty()) options.format = *driver;
        options.tree.erase("driver");
    }
    if (auto name = options.tree.text("file.filename"); name && options.filename.empty()) options.filename = *name;
    if (auto name = options.tree.text("filename"); name && options.filename.empty()) options.filename = *name;
    if (options.filename.starts_with("json:")) return normalize(options);
    return take_common_options(options);
}

// The options of the protocol level under `options`.
OpenOptions file_options(OpenOptions const& options, bool format_is_protocol) {
    OpenOptions file = options;
    file.tree = format_is_protocol ? options.tree : options.tree.sub("file");
    file.format = format_is_protocol ? options.format : file.tree.text_or("driver", "");
    file.tree.erase("driver");
    return file;
}

// A writable image keeps writers out of the whole chain; a backing file is only ever read.
OpenOptions backing_options(OpenOptions const& overlay, std::string filename, std::string format) {
    OpenOptions options;
    options.filename = std::move(filename);
    options.format = std::move(format);
    options.tree = overlay.tree.sub("backing");
    options.read_only = true;
    options.cache = overlay.cache;
    options.aio = overlay.aio;
    options.locking = overlay.locking;
    options.share_rw = overlay.share_rw;
    options.force_share = overlay.force_share;
    options.no_io = overlay.no_io;
    options.quiet_probe = true; // read-only: nothing a guest writes can change what it is probed as
    return options;
}

Task<Result<Format const*>> probe_format(BlockContext& context, BlockDevice& file, OpenOptions const& options) {
    std::vector<std::uint8_t> header(std::min<std::uint64_t>(probe_bytes, file.size_bytes()));
    if (!header.empty()) {
        Bytes all(header);
        CO_TRY(co_await read_bytes(file, 0, all));
    }
    Format const* format = context.formats.probe(header, options.filename);
    if (!format) co_return error("Could not determine the format of '{}'", options.filename);
    co_return format;
}

// An option no driver looks at is a mistake of the user's.
Result<void> check_format_options(Format const& format, OpenOptions const& options) {
    std::vector<OptionSpec> specs(format.open_options.begin(), format.open_options.end());
    for (std::string_view name : {"file.", "filename"}) specs.push_back({name, OptionType::string, ""});
    if (format.supports_backing)
        for (std::string_view name : {"backing", "backing."}) specs.push_back({name, OptionType::string, ""});
    return options.tree.check_open_options(specs, fmt::format("Block format '{}' does not", format.name));
}

// One image without its backing chain.
Task<Result<std::unique_ptr<Image>>> open_layer(BlockContext& context, OpenOptions options) {
    bool names_protocol = !options.format.empty() && !context.formats.find(options.format) &&
                          context.formats.find_protocol(options.format);
    Format const* format = nullptr;
    if (names_protocol)
        format = context.formats.find("raw");
    else if (!options.format.empty() && !(format = context.formats.find(options.format)))
        co_return error("Unknown driver '{}'{}", options.format, context.formats.suggest(options.format));
    if (format && !names_protocol && options.filename.empty() && options.tree.sub("file").empty())
        co_return error("A block device must be specified for \"file\"");

    FormatOpenArgs args{context, nullptr, options.filename, options};
    bool guessed_raw = false;
    if (!format || format->needs_file) {
        OpenOptions file = file_options(options, names_protocol);
        CO_TRY_ASSIGN(args.file, co_await open_protocol(context, std::move(file)));
        if (!format) {
            CO_TRY_ASSIGN(format, co_await probe_format(context, *args.file, options));
            struct stat status {};
            bool device = stat(options.filename.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
            guessed_raw = format->name == "raw" && !device && !args.file->read_only();
            if (guessed_raw && !options.quiet_probe) context.log.message("", raw_probe_warning(options.filename));
        }
    }
    if (!names_protocol) CO_TRY(check_format_options(*format, options));
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await format->open(std::move(args)));
    image->set_filename(options.filename);
    if (guessed_raw) image->set_probed_raw();
    image->set_detect_zeroes(options.detect_zeroes);
    co_return std::move(image);
}

struct BackingPlan {
    std::string filename, format;
};

// Which backing file to open under `image`; empty: none.
BackingPlan plan_backing(Image& image, OpenOptions const& options) {
    BackingReference recorded = image.backing_reference();
    if (!recorded.filename.empty())
        image.set_full_backing_filename(resolve_backing_filename(image.filename(), recorded.filename));
    if (options.backing == BackingChoice::none) return {};
    if (options.backing == BackingChoice::override_) return {options.backing_filename, options.backing_format};
    if (auto node = options.tree.text("backing.file.filename"))
        return {*node, options.tree.text_or("backing.driver", "")};
    if (auto node = options.tree.text("backing"); node && node->empty()) return {};
    return {image.full_backing_filename(), recorded.format};
}

} // namespace

std::string FormatTable::suggest(std::string_view word) const {
    std::vector<std::string_view> names;
    for (Format const& format : formats_) names.push_back(format.name);
    for (Protocol const& protocol : protocols_) names.push_back(protocol.name);
    return suggestion(word, names);
}

Result<Protocol const*> FormatTable::protocol_for(std::string_view filename) const {
    for (Protocol const& protocol : protocols_)
        if (protocol.matches && protocol.matches(filename)) return &protocol;
    struct stat status {};
    std::string path(filename);
    bool exists = stat(path.c_str(), &status) == 0;
    std::size_t colon = protocol_colon(filename);
    if (colon != std::string_view::npos && !exists) return error("Unknown protocol '{}'", filename.substr(0, colon));
    bool device = exists && S_ISBLK(status.st_mode);
    if (device && (filename.starts_with("/dev/cdrom") || filename.starts_with("/dev/sr")))
        if (Protocol const* cdrom = find_protocol("host_cdrom")) return cdrom;
    Protocol const* plain = find_protocol(device ? "host_device" : "file");
    VMM_ASSERT(plain);
    return plain;
}

std::string resolve_backing_filename(std::string_view overlay, std::string_view reference) {
    if (reference.empty() || reference[0] == '/' || protocol_colon(reference) != std::string_view::npos)
        return std::string(reference);
    if (overlay.starts_with("json:")) return std::string(reference);
    std::size_t slash = overlay.rfind('/');
    return slash == std::string_view::npos ? std::string(reference)
                                           : std::string(overlay.substr(0, slash + 1)) + std::string(reference);
}

std::string raw_probe_warning(std::string_view filename) {
    return fmt::format(
        "WARNING: Image format was not specified for '{0}' and probing guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be "
        "restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions.",
        filename);
}

Task<Result<std::unique_ptr<BlockDevice>>> open_protocol(BlockContext& context, OpenOptions options) {
    CO_TRY(normalize(options));
    Protocol const* protocol = nullptr;
    if (!options.format.empty()) {
        protocol = context.formats.find_protocol(options.format);
        if (!protocol)
            co_return error("Unknown driver '{}'{}", options.format, context.formats.suggest(options.format));
    } else {
        CO_TRY_ASSIGN(protocol, context.formats.protocol_for(options.filename));
    }
    std::vector<OptionSpec> specs(protocol->open_options.begin(), protocol->open_options.end());
    specs.push_back({"filename", OptionType::string, ""});
    CO_TRY(options.tree.check_open_options(specs, fmt::format("Block protocol '{}' doesn't", protocol->name)));
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> device, co_await protocol->open(context, std::move(options)));
    co_return align_requests(std::move(device));
}

Task<Result<std::unique_ptr<BlockDevice>>> create_file(BlockContext& context, std::string filename, std::uint64_t size,
                                                       OptionValues options) {
    CO_TRY_ASSIGN(Protocol const* protocol, context.formats.protocol_for(filename));
    if (!protocol->create) co_return error("Protocol driver '{}' does not support image creation", protocol->name);
    CO_TRY(co_await protocol->create(context, filename, size, std::move(options)));
    OpenOptions open;
    open.filename = filename;
    Result<std::unique_ptr<BlockDevice>> device = co_await open_protocol(context, open);
    co_return device;
}

Task<Result<std::unique_ptr<Image>>> open_image(BlockContext& context, OpenOptions options) {
    CO_TRY(normalize(options));
    CO_TRY_ASSIGN(std::unique_ptr<Image> top, co_await open_layer(context, options));
    std::vector<std::string> seen{canonical(options.filename)};
    std::optional<Error> failure;
    std::string prefix;
    for (Image* layer = top.get(); !failure;) {
        BackingPlan plan = plan_backing(*layer, options);
        if (plan.filename.empty()) break;
        prefix += "Could not open backing file: ";
        if (seen.size() >= max_chain_depth) {
            failure = error("The backing chain of '{}' is deeper than {} images", top->filename(), max_chain_depth);
            break;
        }
        std::string name = canonical(plan.filename);
        if (std::ranges::find(seen, name) != seen.end()) {
            failure = error("The backing chain loops: '{}' has the backing file '{}', which is above it in the chain",
                            layer->filename(), plan.filename);
            break;
        }
        seen.push_back(std::move(name));
        options = backing_options(options, plan.filename, plan.format);
        Result<void> normal = normalize(options);
        if (!normal.ok()) {
            failure = normal.error();
            break;
        }
        Result<std::unique_ptr<Image>> below = co_await open_layer(context, options);
        if (!below.ok()) {
            failure = below.error();
            break;
        }
        Image* next = below.value().get();
        layer->set_backing(std::move(below).value());
        layer = next;
    }
    if (failure) {
        Result<void> ignored = co_await close_image(std::move(top)); // the first error is the one to show
        (void)ignored;
        co_return Error(prefix + failure->message(), failure->errno_value());
    }
    co_return std::move(top);
}

Task<Result<void>> close_image(std::unique_ptr<Image> image) {
    Result<void> first;
    while (image) {
        Result<void> closed = co_await image->close();
        if (!closed.ok() && first.ok()) first = closed;
        image = image->take_backing();
    }
    co_return first;
}

} // namespace vmm::block
