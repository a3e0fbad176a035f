// vmm-img compare
#include "block/core/buffer_pool.h"
#include "block/core/chain.h"
#include "block/core/sync.h"
#include "block/tools/common/interrupts.h"
#include "block/tools/img/command.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace vmm::block {

namespace {

constexpr std::uint64_t chunk_bytes = 512 << 10;
constexpr std::size_t in_flight = 8;
constexpr std::uint64_t sector_bytes = 512;
constexpr int status_differ = 1, status_failed = 2;

// What to print, and the exit status.
struct Verdict {
    int status = 0;
    std::string text;
};

class Comparison {
public:
    Comparison(Image& first, Image& second, bool strict, Progress& progress, Interrupts& interrupts)
        : first_(first), second_(second), strict_(strict), progress_(progress), interrupts_(interrupts) {}

    Task<Result<Verdict>> run(std::function<void(std::string_view)> print) {
        std::uint64_t a = first_.size_bytes(), b = second_.size_bytes(), common = std::min(a, b);
        Verdict verdict;
        if (strict_ && a != b) co_return Verdict{status_differ, "Strict mode: Image size mismatch!"};
        progress_.start(std::max(a, b));
        TaskGroup group(in_flight);
        Result<void> walked = co_await walk_common(group, common);
        Result<void> finished = co_await group.finish();
        if (!walked.ok()) co_return walked.error();
        if (!finished.ok()) co_return finished.error();
        if (mismatch_ != UINT64_MAX) {
            verdict.status = status_differ;
            verdict.text = status_mismatch_ ? fmt::format("Strict mode: Offset {} block status mismatch!", mismatch_)
                                            : fmt::format("Content mismatch at offset {}!", mismatch_);
            co_return verdict;
        }
        if (a != b) {
            print("Warning: Image size mismatch!");
            Image& longer = a > b ? first_ : second_;
            CO_TRY(co_await walk_rest(longer, common));
        }
        if (mismatch_ != UINT64_MAX)
            verdict = {status_differ, fmt::format("Content mismatch at offset {}!", mismatch_)};
        else
            verdict.text = "Images are identical.";
        co_return verdict;
    }

private:
    void found(std::uint64_t offset) { mismatch_ = std::min(mismatch_, offset); }

    Task<Result<void>> walk_common(TaskGroup& group, std::uint64_t end) {
        for (std::uint64_t at = 0; at < end && mismatch_ == UINT64_MAX && !group.failed();) {
            CO_TRY(interrupts_.check());
            CO_TRY_ASSIGN(BlockStatus a, co_await chain_status(first_, at, end - at));
            CO_TRY_ASSIGN(BlockStatus b, co_await chain_status(second_, at, std::min(end - at, a.length)));
            std::uint64_t length = std::min(a.length, b.length);
            if (strict_ && (a.allocated != b.allocated || a.zero != b.zero || a.data != b.data)) {
                CO_TRY(co_await group.finish()); // differences further up come first
                if (mismatch_ == UINT64_MAX) {
                    status_mismatch_ = true;
                    found(at);
                }
                break;
            }
            if (a.zero && b.zero) {
                progress_.advance(length);
                at += length;
                continue;
            }
            length = std::min(length, chunk_bytes);
            Task<Result<void>> work = a.zero   ? check_zero(second_, at, length)
                                      : b.zero ? check_zero(first_, at, length)
                                               : compare(at, length);
            co_await group.start(std::move(work));
            at += length;
        }
        co_return Result<void>{};
    }

    Task<Result<void>> walk_rest(Image& longer, std::uint64_t at) {
        while (at < longer.size_bytes() && mismatch_ == UINT64_MAX) {
            CO_TRY(interrupts_.check());
            CO_TRY_ASSIGN(BlockStatus status, co_await chain_status(longer, at, longer.size_bytes() - at));
            std::uint64_t length = status.zero ? status.length : std::min(status.length, chunk_bytes);
            if (status.zero) {
                progress_.advance(length);
            } else {
                CO_TRY(co_await check_zero(longer, at, length));
            }
            at += length;
        }
        co_return Result<void>{};
    }

    Task<Result<void>> read(Image& image, std::uint64_t at, Bytes to) {
        Result<void> result = co_await read_bytes(image, at, to);
        if (!result.ok())
            co_return result.error().with_prefix(
                fmt::format("Error while reading offset {} of {}", at, image.filename()));
        co_return result;
    }

    Task<Result<void>> check_zero(Image& image, std::uint64_t at, std::uint64_t length) {
        BufferPool::Lease buffer = buffers_.take();
        if (!buffer) co_return error("Out of memory");
        Bytes all = buffer.bytes(length);
        CO_TRY(co_await read(image, at, all));
        if (!is_zero(ConstBytes(all))) {
            auto byte = std::ranges::find_if(all, [](std::uint8_t b) { return b != 0; });
            found(at + std::uint64_t(byte - all.begin()) / sector_bytes * sector_bytes);
        }
        progress_.advance(length);
        co_return Result<void>{};
    }

    Task<Result<void>> compare(std::uint64_t at, std::uint64_t length) {
        BufferPool::Lease a = buffers_.take(), b = buffers_.take();
        if (!a || !b) co_return error("Out of memory");
        Bytes all_a = a.bytes(length), all_b = b.bytes(length);
        std::vector<Task<Result<void>>> reads;
        reads.push_back(read(first_, at, all_a));
        reads.push_back(read(second_, at, all_b));
        CO_TRY(co_await when_all(std::move(reads)));
        if (std::memcmp(all_a.data(), all_b.data(), length) != 0) {
            auto differ = std::ranges::mismatch(all_a, all_b);
            found(at + std::uint64_t(differ.in1 - all_a.begin()) / sector_bytes * sector_bytes);
        }
        progress_.advance(length);
        co_return Result<void>{};
    }

    Image& first_;
    Image& second_;
    bool strict_;
    Progress& progress_;
    Interrupts& interrupts_;
    BufferPool buffers_{chunk_bytes};
    std::uint64_t mismatch_ = UINT64_MAX; // lowest difference found: earlier chunks are always started first
    bool status_mismatch_ = false;
};

Task<Result<Verdict>> compare_images(Tool& tool, std::vector<ImageRequest> requests, bool strict, bool quiet,
                                     Progress& progress, Interrupts& interrupts) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> first, co_await open_for_tool(tool, requests[0]));
    Result<std::unique_ptr<Image>> second = co_await open_for_tool(tool, requests[1]);
    if (!second.ok()) {
        Result<Verdict> failed = second.error();
        Result<Verdict> closed = co_await close_after(std::move(first), failed);
        co_return closed;
    }
    std::function<void(std::string_view)> print = [quiet](std::string_view line) {
        if (!quiet) std::printf("%.*s\n", int(line.size()), line.data());
    };
    Comparison comparison(*first, **second, strict, progress, interrupts);
    Result<Verdict> verdict = co_await comparison.run(print);
    verdict = co_await close_after(std::move(first), std::move(verdict));
    verdict = co_await close_after(std::move(second).value(), std::move(verdict));
    co_return verdict;
}

} // namespace

int img_compare(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'f', true}, {"", 'F', true}, {"", 'T', true},      {"", 'p'},
                                  {"", 'q'},       {"", 's'},       {"force-share", 'U'}, {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    if (args.operands().size() != 2) {
        tool.usage_error("Expecting two image file names");
        return 1;
    }
    Result<CacheMode> cache = parse_cache_option(args.value('T'), CacheMode::writeback, true);
    if (!cache.ok()) {
        tool.fail(cache.error());
        return status_failed;
    }
    std::vector<ImageRequest> requests(2);
    for (int i = 0; i < 2; ++i) {
        requests[i].name = args.operands()[i];
        requests[i].format = args.value_or(i == 0 ? 'f' : 'F', "");
        requests[i].image_opts = args.has("image-opts");
        requests[i].force_share = args.has('U');
        requests[i].cache = *cache;
    }
    bool quiet = args.has('q');
    Progress* shown = nullptr;
    Interrupts interrupts(tool.loop(), [&shown] {
        if (shown) shown->print_now();
    });
    constexpr double step = 2.0;
    Progress progress({.printed = args.has('p') && !quiet, .quiet = quiet, .step = step, .at_once = false});
    shown = &progress;
    Result<Verdict> verdict =
        tool.run(compare_images(tool, std::move(requests), args.has('s'), quiet, progress, interrupts));
    shown = nullptr;
    if (!verdict.ok()) {
        tool.fail(verdict.error());
        interrupts.die_if_pending();
        return status_failed;
    }
    if (!quiet) std::printf("%s\n", verdict->text.c_str());
    return verdict->status;
}

} // namespace vmm::block
