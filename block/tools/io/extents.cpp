// alloc, map, discard: what is stored and what is not.
#include "block/tools/io/command_options.h"
#include "block/tools/io/report.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace vmm::block {

namespace {

// How long the state at `offset` lasts, and whether this layer has the bytes.
Task<Result<BlockStatus>> layer_status(Image& image, std::uint64_t offset, std::uint64_t length) {
    BlockStatus status;
    status.length = length;
    status.allocated = true;
    if (AllocationMap* map = image.capabilities().allocation) {
        CO_TRY_ASSIGN(status, co_await map->status(offset, length));
    }
    co_return status;
}

int status_failure(Error const& error) {
    std::printf("is_allocated failed: %s\n", std::strerror(error.errno_value() ? error.errno_value() : EIO));
    return -EIO;
}

} // namespace

int io_alloc(IoSession& session, std::span<std::string const> words) {
    auto start = parse_amount(words[1]);
    if (!start) return -EINVAL;
    std::int64_t count = 512;
    if (words.size() > 2) {
        auto given = parse_amount(words[2]);
        if (!given) return -EINVAL;
        count = *given;
    }
    Image& image = *session.image();
    std::uint64_t size = image.size_bytes(), at = std::uint64_t(*start);
    std::uint64_t length = at >= size ? 0 : std::min(std::uint64_t(count), size - at), end = at + length, allocated = 0;
    while (at < end) {
        Result<BlockStatus> status = session.tool().run(layer_status(image, at, end - at));
        if (!status.ok()) return status_failure(status.error());
        if (status->allocated) allocated += status->length;
        at += status->length;
    }
    std::printf("%llu/%llu bytes allocated at offset %s\n", static_cast<unsigned long long>(allocated),
                static_cast<unsigned long long>(length), io_size(double(*start)).c_str());
    return 0;
}

int io_map(IoSession& session, std::span<std::string const>) {
    Image& image = *session.image();
    std::uint64_t size = image.size_bytes();
    for (std::uint64_t at = 0; at < size;) {
        std::uint64_t end = at;
        bool allocated = false;
        while (end < size) {
            Result<BlockStatus> status = session.tool().run(layer_status(image, end, size - end));
            if (!status.ok()) return status_failure(status.error());
            if (end > at && status->allocated != allocated) break;
            allocated = status->allocated;
            end += status->length;
        }
        std::printf("%s", fmt::format("{} ({:#x}) bytes {} allocated at offset {} ({:#x})\n", io_size(double(end - at)),
                                      end - at, allocated ? "   " : "not", io_size(double(at)), at)
                              .c_str());
        at = end;
    }
    return 0;
}

int io_discard(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "Cq");
    if (!flags || flags->operands.size() != 2) return show_synopsis("discard");
    auto offset = parse_amount(flags->operands[0]);
    auto length = offset ? parse_amount(flags->operands[1]) : std::nullopt;
    if (!length) return -EINVAL;
    std::uint64_t at = std::uint64_t(*offset), bytes = std::uint64_t(*length);
    auto start = IoClock::now();
    Result<void> result = session.tool().run(discard(*session.image(), at, bytes));
    double seconds = seconds_since(start);
    if (!result.ok()) {
        int code = result.error().errno_value() ? result.error().errno_value() : EIO;
        std::printf("discard failed: %s\n", std::strerror(code));
        return -code;
    }
    if (!flags->has('q')) print_result({"discard", at, bytes, bytes, 1, seconds}, flags->has('C'));
    return 0;
}

} // namespace vmm::block
