// vmm-img commit
#include "block/core/buffer_pool.h"
#include "block/core/chain.h"
#include "block/core/sync.h"
#include "block/tools/common/interrupts.h"
#include "block/tools/common/pause.h"
#include "block/tools/img/command.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace vmm::block {

namespace {

constexpr std::uint64_t chunk_bytes = 256 << 10;
constexpr std::size_t in_flight = 8;

struct CommitCommand {
    ImageRequest image;
    std::optional<std::string> base; // -b; else the direct backing file
    bool keep = false;               // -d, -b: the image keeps its content
    std::uint64_t bytes_per_second = 0;
};

// The chain above the base, without the base: what these layers allocate is what has to go down.
struct Layers {
    std::unique_ptr<Image> top;
    std::string base_name, base_format;
};

std::string canonical(std::string const& name) {
    char* resolved = realpath(name.c_str(), nullptr);
    std::string result = resolved ? resolved : name;
    std::free(resolved);
    return result;
}

// Opens the layers down to the one above `command.base`. The base itself is opened apart, for writing: opened as a
// backing file it would keep writers out.
Task<Result<Layers>> open_layers(Tool& tool, CommitCommand const& command) {
    Layers layers;
    ImageRequest next = command.image;
    next.backing = BackingChoice::none;
    CO_TRY_ASSIGN(layers.top, co_await open_for_tool(tool, next));
    Image* lowest = layers.top.get();
    for (unsigned depth = 0;; ++depth) {
        std::string below = lowest->full_backing_filename(), written = lowest->backing_reference().filename;
        if (below.empty() && !command.base) co_return error("Image does not have a backing file");
        if (below.empty() || depth >= max_chain_depth)
            co_return error("Did not find '{}' in the backing chain of '{}'", command.base.value_or(""),
                            command.image.name);
        layers.base_name = below;
        layers.base_format = lowest->backing_reference().format;
        bool found = !command.base || *command.base == written ||
                     (!command.base->empty() && canonical(*command.base) == canonical(below));
        if (found) co_return std::move(layers);
        next = ImageRequest{.name = below, .format = layers.base_format};
        next.backing = BackingChoice::none;
        next.cache = command.image.cache;
        CO_TRY_ASSIGN(std::unique_ptr<Image> layer, co_await open_for_tool(tool, next));
        Image* opened = layer.get();
        lowest->set_backing(std::move(layer));
        lowest = opened;
    }
}

class Commit {
public:
    Commit(Tool& tool, Image& top, Image& base, std::uint64_t rate, Progress& progress, Interrupts& interrupts)
        : top_(top), base_(base), rate_(tool.loop(), rate), progress_(progress), interrupts_(interrupts) {}

    Task<Result<void>> run() {
        std::uint64_t size = top_.size_bytes();
        if (base_.size_bytes() < size) {
            Resizable* resizable = base_.capabilities().resizable;
            if (!resizable) co_return error("The backing file is smaller than the image and cannot be resized");
            ResizeRequest grow{.new_size_bytes = size};
            CO_TRY(co_await resizable->resize(grow));
        }
        CO_TRY_ASSIGN(std::uint64_t total, co_await count());
        progress_.start(total);
        TaskGroup group(in_flight);
        Result<void> walked = co_await walk(group, size);
        Result<void> finished = co_await group.finish();
        CO_TRY(walked);
        CO_TRY(finished);
        Result<void> flushed = co_await base_.flush();
        co_return flushed;
    }

private:
    Task<Result<std::uint64_t>> count() {
        std::uint64_t total = 0, size = top_.size_bytes();
        for (std::uint64_t at = 0; at < size;) {
            CO_TRY_ASSIGN(BlockStatus status, co_await chain_status(top_, at, size - at));
            if (status.allocated) total += status.length;
            at += status.length;
        }
        co_return total;
    }
    Task<Result<void>> walk(TaskGroup& group, std::uint64_t size) {
        for (std::uint64_t at = 0; at < size && !group.failed();) {
            CO_TRY(interrupts_.check());
            CO_TRY_ASSIGN(BlockStatus status, co_await chain_status(top_, at, size - at));
            std::uint64_t length = status.length;
            if (status.allocated) {
                if (!status.zero) length = std::min(length, chunk_bytes);
                co_await rate_.take(length);
                Task<Result<void>> work = copy(at, length, status.zero);
                co_await group.start(std::move(work));
            }
            at += length;
        }
        co_return Result<void>{};
    }
    Task<Result<void>> copy(std::uint64_t at, std::uint64_t length, bool zero) {
        if (zero) {
            ZeroFlags flags;
            flags.may_unmap = true;
            CO_TRY(co_await write_zeroes(base_, at, length, flags));
        } else {
            BufferPool::Lease buffer = buffers_.take();
            if (!buffer) co_return error("Out of memory");
            Bytes all = buffer.bytes(length);
            CO_TRY(co_await read_bytes(top_, at, all));
            CO_TRY(co_await write_bytes(base_, at, all));
        }
        progress_.advance(length);
        co_return Result<void>{};
    }

    Image& top_;
    Image& base_;
    RateLimit rate_;
    Progress& progress_;
    Interrupts& interrupts_;
    BufferPool buffers_{chunk_bytes};
};

// The top holds nothing of its own any more. It sees the base as it is now: a VMDK notes what became of its parent.
Task<Result<void>> empty_top(Tool& tool, Layers& layers, ImageRequest base) {
    Emptyable* emptyable = layers.top->capabilities().emptyable;
    if (!emptyable) co_return Result<void>{};
    if (!layers.top->backing()) {
        base.writable = base.discard = false;
        CO_TRY_ASSIGN(std::unique_ptr<Image> now, co_await open_for_tool(tool, std::move(base)));
        layers.top->set_backing(std::move(now));
    }
    Result<void> result = co_await emptyable->make_empty();
    co_return result;
}

Task<Result<void>> commit(Tool& tool, CommitCommand command, Progress& progress, Interrupts& interrupts) {
    CO_TRY_ASSIGN(Layers layers, co_await open_layers(tool, command));
    ImageRequest below{.name = layers.base_name, .format = layers.base_format};
    below.writable = true;
    below.cache = command.image.cache;
    below.discard = true;
    below.quiet_probe = true; // what the chain is made of was decided when it was made
    Result<std::unique_ptr<Image>> base = co_await open_for_tool(tool, below);
    Result<void> result;
    if (!base.ok()) {
        result = base.error();
    } else {
        Commit work(tool, *layers.top, **base, command.bytes_per_second, progress, interrupts);
        result = co_await work.run();
        result = co_await close_after(std::move(base).value(), result);
        // Only now: what the base holds is on stable storage.
        if (result.ok() && !command.keep) result = co_await empty_top(tool, layers, below);
    }
    Result<void> closed = co_await close_after(std::move(layers.top), result);
    co_return closed;
}

} // namespace

int img_commit(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'f', true}, {"", 't', true}, {"", 'b', true}, {"", 'd'},
                                  {"", 'p'},       {"", 'q'},       {"", 'r', true}, {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    CommitCommand command;
    if (std::string const* rate = args.value('r')) {
        Result<std::uint64_t> bytes = parse_byte_count(tool.name(), "rate limit", *rate);
        if (!bytes.ok()) return tool.fail(bytes.error());
        command.bytes_per_second = *bytes;
    }
    if (args.operands().size() != 1) return tool.usage_error("Expecting one image file name");
    Result<CacheMode> cache = parse_cache_option(args.value('t'), CacheMode::writeback);
    if (!cache.ok()) return tool.fail(cache.error());
    if (std::string const* base = args.value('b')) command.base = *base;
    command.keep = args.has('d') || args.has('b'); // what lies between top and base would show through
    command.image.name = args.operands()[0];
    command.image.format = args.value_or('f', "");
    command.image.image_opts = args.has("image-opts");
    command.image.cache = *cache;
    command.image.writable = true; // nobody may change it meanwhile
    Progress* shown = nullptr;
    Interrupts interrupts(tool.loop(), [&shown] {
        if (shown) shown->print_now();
    });
    bool quiet = args.has('q');
    Result<void> result;
    {
        Progress progress({.printed = args.has('p') && !quiet, .quiet = quiet});
        shown = &progress;
        result = tool.run(commit(tool, std::move(command), progress, interrupts));
        if (result.ok()) progress.finish();
        shown = nullptr;
    }
    if (!result.ok()) tool.fail(result.error());
    interrupts.die_if_pending();
    if (!result.ok()) return 1;
    if (!quiet) std::printf("Image committed.\n");
    return 0;
}

} // namespace vmm::block
