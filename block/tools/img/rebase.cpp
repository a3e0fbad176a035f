// vmm-img rebase
#include "block/core/chain.h"
#include "block/tools/common/interrupts.h"
#include "block/tools/img/command.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace vmm::block {

namespace {

constexpr std::uint64_t chunk_bytes = 2 << 20;

struct RebaseRequest {
    ImageRequest image;
    std::string backing, backing_format; // empty backing: none
    bool unsafe = false;                 // -u: change the name only
    bool strict = false;
    CacheMode source_cache = CacheMode::writeback;
};

std::string canonical(std::string const& name) {
    char* resolved = realpath(name.c_str(), nullptr);
    std::string result = resolved ? resolved : name;
    std::free(resolved);
    return result;
}

// A layer of the old chain that the new backing file already is; null: none.
Image* common_base(Image& image, std::string const& new_backing) {
    std::string wanted = canonical(new_backing);
    for (Image* layer = image.backing(); layer; layer = layer->backing())
        if (canonical(layer->filename()) == wanted) return layer;
    return nullptr;
}

// Writes into `image` what its old backing chain and `next` (null: zeroes) answer differently.
class Rebase {
public:
    Rebase(Image& image, Image* next, Image* common, Progress& progress, Interrupts& interrupts)
        : image_(image), next_(next), common_(common), progress_(progress), interrupts_(interrupts),
          old_data_(chunk_bytes), new_data_(chunk_bytes) {}

    Task<Result<void>> run() {
        if (!old_data_ || !new_data_) co_return error("Out of memory");
        std::uint64_t size = image_.size_bytes();
        progress_.start(size);
        std::uint64_t granularity = std::max<std::uint64_t>(image_.limits().opt_transfer, min_granularity);
        for (std::uint64_t at = 0; at < size;) {
            CO_TRY(interrupts_.check());
            CO_TRY_ASSIGN(BlockStatus status, co_await chain_status(image_, at, size - at, common_));
            std::uint64_t length = status.length;
            bool own = status.allocated && status.depth == 0;
            bool shared = !status.allocated && common_; // both chains get it from the same layer
            if (!own && !shared && !(status.zero && !next_)) {
                length = std::min(length, chunk_bytes - at % granularity);
                CO_TRY(co_await bring_over(at, length, granularity));
            }
            at += length;
            progress_.set(at);
        }
        co_return Result<void>{};
    }

private:
    static constexpr std::uint64_t min_granularity = 65536;

    Task<Result<void>> bring_over(std::uint64_t at, std::uint64_t length, std::uint64_t granularity) {
        Bytes old_bytes = old_data_.bytes().first(length), new_bytes = new_data_.bytes().first(length);
        IoVector old_parts(old_bytes), new_parts(new_bytes);
        CO_TRY(co_await read_backing(image_.backing(), at, old_parts.spans()));
        CO_TRY(co_await read_backing(next_, at, new_parts.spans()));
        for (std::uint64_t begin = 0; begin < length;) {
            std::uint64_t n = std::min(granularity - (at + begin) % granularity, length - begin);
            if (std::memcmp(old_data_.data() + begin, new_data_.data() + begin, n) != 0) {
                ConstBytes part = old_bytes.subspan(begin, n);
                Result<void> result;
                if (is_zero(part)) {
                    ZeroFlags flags;
                    result = co_await write_zeroes(image_, at + begin, n, flags);
                } else {
                    result = co_await write_bytes(image_, at + begin, part);
                }
                if (!result.ok()) co_return result.error().with_prefix("Error while writing to COW image");
            }
            begin += n;
        }
        co_return Result<void>{};
    }

    Image& image_;
    Image* next_;
    Image* common_;
    Progress& progress_;
    Interrupts& interrupts_;
    AlignedBuffer old_data_, new_data_;
};

Task<Result<std::unique_ptr<Image>>> open_new_backing(Tool& tool, Image& image, RebaseRequest const& request) {
    OpenOptions options;
    options.filename = resolve_backing_filename(image.filename(), request.backing);
    options.format = request.backing_format;
    options.read_only = true;
    options.quiet_probe = true;
    options.cache = request.source_cache;
    options.force_share = request.image.force_share;
    Result<std::unique_ptr<Image>> opened = co_await open_image(tool.context(), options);
    if (!opened.ok())
        co_return opened.error().with_prefix(fmt::format("Could not open new backing file '{}'", request.backing));
    co_return std::move(opened).value();
}

// The format to record: what -F says, or what the file turns out to be.
Task<Result<std::string>> backing_format_for(Tool& tool, Image& image, RebaseRequest const& request) {
    if (request.backing.empty() || !request.backing_format.empty()) co_return request.backing_format;
    if (request.strict)
        co_return error("Could not change the backing file to '{}': backing format must be specified", request.backing);
    CO_TRY_ASSIGN(std::unique_ptr<Image> backing, co_await open_new_backing(tool, image, request));
    std::string format(backing->format_name());
    CO_TRY(co_await close_image(std::move(backing)));
    tool.warn(fmt::format("Backing file specified without backing format; using the detected format {0} (say so with "
                          "-F {0})",
                          format));
    co_return format;
}

Task<Result<void>> rebase(Tool& tool, Image& image, RebaseRequest const& request, Progress& progress,
                          Interrupts& interrupts) {
    BackingLink* link = image.capabilities().backing_link;
    if (!link)
        co_return error("Could not change the backing file to '{}': {}", request.backing, std::strerror(ENOTSUP));
    if (!request.unsafe) {
        std::unique_ptr<Image> next;
        if (!request.backing.empty()) {
            CO_TRY_ASSIGN(next, co_await open_new_backing(tool, image, request));
        }
        Image* common = next ? common_base(image, next->filename()) : nullptr;
        Rebase work(image, next.get(), common, progress, interrupts);
        Result<void> result = co_await work.run();
        if (next) result = co_await close_after(std::move(next), result);
        CO_TRY(result);
        CO_TRY(co_await image.flush());
    }
    CO_TRY_ASSIGN(std::string format, co_await backing_format_for(tool, image, request));
    Result<void> changed = co_await link->change_backing(request.backing, format);
    if (!changed.ok())
        co_return changed.error().with_prefix(
            fmt::format("Could not change the backing file to '{}'", request.backing));
    co_return Result<void>{};
}

Task<Result<void>> open_and_rebase(Tool& tool, RebaseRequest request, Progress& progress, Interrupts& interrupts) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request.image));
    Result<void> result = co_await rebase(tool, *image, request, progress, interrupts);
    Result<void> closed = co_await close_after(std::move(image), result);
    co_return closed;
}

} // namespace

int img_rebase(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'f', true}, {"", 'F', true},   {"", 'b', true},     {"", 'u'},
                                  {"", 'p'},       {"", 'q'},         {"", 't', true},     {"", 'T', true},
                                  {"strict", 0},   {"image-opts", 0}, {"force-share", 'U'}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    if (args.operands().size() != 1) return tool.usage_error("Expecting one image file name");
    RebaseRequest request;
    request.unsafe = args.has('u');
    request.strict = args.has("strict");
    if (!request.unsafe && !args.has('b'))
        return tool.usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
    Result<CacheMode> cache = parse_cache_option(args.value('t'), CacheMode::writeback);
    Result<CacheMode> source_cache = parse_cache_option(args.value('T'), CacheMode::writeback, true);
    if (!cache.ok()) return tool.fail(cache.error());
    if (!source_cache.ok()) return tool.fail(source_cache.error());
    request.source_cache = *source_cache;
    request.backing = args.value_or('b', "");
    request.backing_format = args.value_or('F', "");
    if (!request.backing_format.empty() && !tool.context().formats.find(request.backing_format))
        return tool.fail(fmt::format("Invalid format name: '{}'", request.backing_format));
    request.image.name = args.operands()[0];
    request.image.format = args.value_or('f', "");
    request.image.image_opts = args.has("image-opts");
    request.image.cache = *cache;
    request.image.writable = true;
    request.image.backing = request.unsafe ? BackingChoice::none : BackingChoice::from_image;
    Progress* shown = nullptr;
    Interrupts interrupts(tool.loop(), [&shown] {
        if (shown) shown->print_now();
    });
    Result<void> result;
    {
        Progress progress({.printed = args.has('p') && !args.has('q'), .quiet = args.has('q')});
        shown = &progress;
        result = tool.run(open_and_rebase(tool, std::move(request), progress, interrupts));
        if (result.ok()) progress.finish();
        shown = nullptr;
    }
    if (!result.ok()) tool.fail(result.error());
    interrupts.die_if_pending();
    return result.ok() ? 0 : 1;
}

} // namespace vmm::block
