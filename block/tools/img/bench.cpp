// vmm-img bench
#include "block/core/sync.h"
#include "block/tools/img/command.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace vmm::block {

namespace {

struct BenchRequest {
    ImageRequest image;
    long count = 75000, depth = 64;
    std::uint64_t request_bytes = 4096, offset = 0;
    std::optional<std::uint64_t> step; // default: request_bytes
    long flush_interval = 0;           // 0: never
    int pattern = 0;
    bool write = false, no_drain = false;
};

// `depth` tasks that each send one request after another, as one stream of offsets.
class Bench {
public:
    Bench(Image& image, BenchRequest const& request)
        : image_(image), r_(request), step_(request.step.value_or(request.request_bytes)), offset_(request.offset),
          left_(request.count), memory_(std::size_t(request.depth) * request.request_bytes) {}

    Task<Result<void>> run() {
        if (!memory_ && r_.depth > 0 && r_.request_bytes > 0) co_return error("Out of memory");
        if (memory_) std::memset(memory_.data(), r_.pattern, memory_.size());
        std::vector<Task<Result<void>>> lanes;
        for (long i = 0; i < std::min(r_.depth, r_.count); ++i) lanes.push_back(lane(std::size_t(i)));
        Result<void> result = co_await when_all(std::move(lanes));
        co_return result;
    }

private:
    Task<Result<void>> lane(std::size_t index) {
        Bytes buffer = memory_.bytes().subspan(index * r_.request_bytes, r_.request_bytes);
        while (left_ > 0) {
            if (r_.flush_interval && flushing_ && !r_.no_drain) {
                co_await flushed_.wait();
                continue;
            }
            --left_;
            std::uint64_t at = offset_;
            offset_ += step_;
            if (image_.size_bytes() != 0) offset_ %= image_.size_bytes();
            Result<void> result;
            ++in_flight_;
            if (r_.write)
                result = co_await write_bytes(image_, at, buffer);
            else
                result = co_await read_bytes(image_, at, buffer);
            --in_flight_;
            if (!result.ok()) {
                stop();
                co_return Error("Failed request: " + std::string(std::strerror(result.error().errno_value())));
            }
            if (r_.flush_interval && ++since_flush_ >= r_.flush_interval) {
                since_flush_ = 0;
                flushing_ = true;
            }
            if (flushing_ && (r_.no_drain || in_flight_ == 0)) {
                if (r_.no_drain) flushing_ = false; // the others go on meanwhile
                result = co_await image_.flush();
                if (!result.ok()) {
                    stop();
                    co_return result;
                }
                flushing_ = false;
                flushed_.notify_all();
            }
        }
        co_return Result<void>{};
    }

    // No lane sends anything more.
    void stop() {
        left_ = 0;
        flushing_ = false;
        flushed_.notify_all();
    }

    Image& image_;
    BenchRequest const& r_;
    std::uint64_t step_, offset_;
    long left_, in_flight_ = 0, since_flush_ = 0;
    bool flushing_ = false; // wanted: waits for the requests in flight, unless no_drain
    AsyncCondition flushed_;
    AlignedBuffer memory_;
};

Task<Result<double>> bench(Tool& tool, BenchRequest request) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request.image));
    std::uint64_t step = request.step.value_or(request.request_bytes);
    std::printf("Sending %ld %s requests, %llu bytes each, %ld in parallel (starting at offset %llu, step size %llu)\n",
                request.count, request.write ? "write" : "read", static_cast<unsigned long long>(request.request_bytes),
                request.depth, static_cast<unsigned long long>(request.offset), static_cast<unsigned long long>(step));
    if (request.flush_interval) std::printf("Sending flush every %ld requests\n", request.flush_interval);
    std::fflush(stdout);
    auto begin = std::chrono::steady_clock::now();
    Bench work(*image, request);
    Result<void> result = co_await work.run();
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    result = co_await close_after(std::move(image), result);
    if (!result.ok()) co_return result.error();
    co_return seconds;
}

// A count of at most INT_MAX.
Result<long> parse_count(std::string const& text, std::string_view message, long least) {
    char* end = nullptr;
    errno = 0;
    long value = std::strtol(text.c_str(), &end, 0);
    if (text.empty() || *end || errno || value < least || value > INT32_MAX) return error("{}", message);
    return value;
}

Result<void> parse_numbers(Tool& tool, Arguments const& args, BenchRequest& request) {
    if (auto const* text = args.value('c'))
        request.count = TRY(parse_count(*text, "Invalid request count specified", 0));
    if (auto const* text = args.value('d')) request.depth = TRY(parse_count(*text, "Invalid queue depth specified", 1));
    if (auto const* text = args.value("pattern")) {
        request.pattern = int(TRY(parse_count(*text, "Invalid pattern byte specified", 0)));
        if (request.pattern > 255) return error("Invalid pattern byte specified");
    }
    if (auto const* text = args.value("flush-interval"))
        request.flush_interval = TRY(parse_count(*text, "Invalid flush interval specified", 0));
    if (auto const* text = args.value('o')) request.offset = TRY(parse_byte_count(tool.name(), "offset", *text));
    if (auto const* text = args.value('s')) {
        request.request_bytes = TRY(parse_byte_count(tool.name(), "buffer size", *text));
        if (request.request_bytes > INT32_MAX)
            return error("Invalid buffer size specified. Must be between 0 and {}.", INT32_MAX);
    }
    if (auto const* text = args.value('S')) request.step = TRY(parse_byte_count(tool.name(), "step size", *text));
    if (request.step == 0u) request.step.reset();
    if (!request.write && request.flush_interval) return error("--flush-interval is only available in write tests");
    if (request.flush_interval && request.flush_interval < request.depth)
        return error("Flush interval can't be smaller than depth");
    constexpr std::uint64_t most_memory = std::uint64_t(4) << 30;
    if (std::uint64_t(request.depth) > most_memory / std::max<std::uint64_t>(request.request_bytes, 1))
        return error("{} requests of {} bytes in parallel need too much memory", request.depth, request.request_bytes);
    return {};
}

} // namespace

int img_bench(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'c', true},
                                  {"", 'd', true},
                                  {"", 'f', true},
                                  {"", 'n'},
                                  {"", 'i', true},
                                  {"", 'o', true},
                                  {"", 'q'},
                                  {"", 's', true},
                                  {"", 'S', true},
                                  {"", 't', true},
                                  {"", 'w'},
                                  {"flush-interval", 0, true},
                                  {"pattern", 0, true},
                                  {"no-drain", 0},
                                  {"force-share", 'U'},
                                  {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    BenchRequest request;
    request.write = args.has('w');
    request.no_drain = args.has("no-drain");
    if (Result<void> numbers = parse_numbers(tool, args, request); !numbers.ok()) return tool.fail(numbers.error());
    if (std::string const* aio = args.value('i')) {
        Result<AioEngine> engine = parse_aio_engine(*aio);
        if (!engine.ok()) return tool.fail(engine.error());
        request.image.aio = *engine;
    }
    Result<CacheMode> cache = parse_cache_option(args.value('t'), CacheMode::writeback);
    if (!cache.ok()) return tool.fail("Invalid cache mode");
    if (args.operands().size() != 1) return tool.usage_error("Expecting one image file name");
    request.image.name = args.operands()[0];
    request.image.format = args.value_or('f', "");
    request.image.image_opts = args.has("image-opts");
    request.image.writable = request.write;
    request.image.force_share = args.has('U');
    request.image.cache = *cache;
    Result<double> seconds = tool.run(bench(tool, std::move(request)));
    if (!seconds.ok()) return tool.fail(seconds.error());
    std::printf("Run completed in %3.3f seconds.\n", *seconds);
    return 0;
}

} // namespace vmm::block
