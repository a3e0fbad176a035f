// read, write, readv, writev: one request, waited for.
#include "block/tools/io/command_options.h"
#include "block/tools/io/report.h"
#include "block/tools/io/requests.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace vmm::block {

namespace {

constexpr std::int64_t largest_request = 0x7ffffe00; // INT_MAX rounded down to a sector
constexpr std::int64_t sector_bytes = 512;

struct Range {
    std::int64_t offset = 0, length = 0;
};
// The two operands "off len".
std::optional<Range> parse_range(Flags const& flags) {
    auto offset = parse_amount(flags.operands[0]);
    if (!offset) return std::nullopt;
    auto length = parse_amount(flags.operands[1]);
    if (!length) return std::nullopt;
    return Range{*offset, *length};
}

bool sector_aligned(Range range) {
    for (auto [value, name] : {std::pair{range.offset, "offset"}, std::pair{range.length, "count"}})
        if (value % sector_bytes != 0) {
            std::printf("%lld is not a sector-aligned value for '%s'\n", static_cast<long long>(value), name);
            return false;
        }
    return true;
}

int report_failure(char const* verb, Error const& error) {
    int code = error.errno_value() ? error.errno_value() : EIO;
    std::printf("%s failed: %s\n", verb, std::strerror(code));
    return -code;
}

// What `read -P [-s] [-l]` verifies.
struct Expectation {
    std::optional<int> pattern;
    std::int64_t start = 0, length = 0;
};
// False: an error was printed.
bool parse_expectation(Flags const& flags, std::int64_t read_length, Expectation& expect) {
    if (auto const* text = flags.value('P')) {
        expect.pattern = parse_pattern(*text);
        if (!expect.pattern) return false;
    }
    expect.length = read_length;
    if (auto const* text = flags.value('s')) {
        auto start = parse_amount(*text);
        if (!start) return false;
        expect.start = *start;
        expect.length = read_length - *start;
    }
    if (auto const* text = flags.value('l')) {
        auto length = parse_amount(*text);
        if (!length) return false;
        expect.length = *length;
    }
    if (expect.start > read_length || expect.length < 0 || expect.length > read_length - expect.start) {
        std::printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

Task<Result<void>> read_state(Snapshots* snapshots, std::uint64_t at, IoSpans to) {
    if (!snapshots) co_return Error("Operation not supported", ENOTSUP);
    Result<void> result = co_await snapshots->read_vm_state(at, to);
    co_return result;
}
Task<Result<void>> write_state(Snapshots* snapshots, std::uint64_t at, ConstIoSpans from) {
    if (!snapshots) co_return Error("Operation not supported", ENOTSUP);
    Result<void> result = co_await snapshots->write_vm_state(at, from);
    co_return result;
}

bool write_flags_fit(Flags const& flags) {
    bool z = flags.has('z');
    if (flags.has('b') && flags.has('c'))
        std::printf("-b and -c cannot be specified at the same time\n");
    else if ((flags.has('b') || flags.has('c')) && z)
        std::printf("-b or -c and -z cannot be specified at the same time\n");
    else if (flags.has('n') && !z)
        std::printf("-n requires -z to be specified\n");
    else if (flags.has('u') && !z)
        std::printf("-u requires -z to be specified\n");
    else if (int(z) + int(flags.has('P')) + int(flags.has('s')) > 1)
        std::printf("Only one of -z, -P, and -s can be specified at the same time\n");
    else
        return true;
    return false;
}

// The buffer of a write; empty when an error was printed.
AlignedBuffer write_data(Flags const& flags, std::size_t length) {
    int pattern = default_pattern;
    if (auto const* text = flags.value('P')) {
        auto parsed = parse_pattern(*text);
        if (!parsed) return {};
        pattern = *parsed;
    }
    AlignedBuffer buffer(std::max<std::size_t>(length, 1));
    if (!buffer) {
        std::printf("cannot allocate memory\n");
        return {};
    }
    std::memset(buffer.data(), pattern, buffer.size());
    if (auto const* name = flags.value('s'))
        if (!fill_from_file(*name, buffer.bytes().first(length))) return {};
    return buffer;
}

} // namespace

int io_read(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "bCl:pP:qs:v");
    bool misplaced = flags && !flags->has('P') && (flags->has('s') || flags->has('l'));
    if (!flags || flags->operands.size() != 2 || misplaced) return show_synopsis("read");
    auto range = parse_range(*flags);
    if (!range) return -EINVAL;
    if (range->length > largest_request) {
        std::printf("length cannot exceed %lld, given %s\n", static_cast<long long>(largest_request),
                    flags->operands[1].c_str());
        return -EINVAL;
    }
    Expectation expect;
    if (!parse_expectation(*flags, range->length, expect)) return -EINVAL;
    if (flags->has('b') && !sector_aligned(*range)) return -EINVAL;
    AlignedBuffer buffer(std::max<std::size_t>(std::size_t(range->length), 1));
    if (!buffer) return std::printf("cannot allocate memory\n"), -ENOMEM;
    std::memset(buffer.data(), unread_pattern, buffer.size());
    IoVector parts(buffer.bytes().first(std::size_t(range->length)));
    Image& image = *session.image();
    auto start = IoClock::now();
    auto offset = std::uint64_t(range->offset);
    Result<void> result =
        session.tool().run(flags->has('b') ? read_state(image.capabilities().snapshots, offset, parts.spans())
                                           : session.read(offset, parts.spans()));
    double seconds = seconds_since(start);
    if (!result.ok()) return report_failure("read", result.error());
    int status = 0;
    if (expect.pattern && !verify_pattern(buffer.bytes().subspan(std::size_t(expect.start), std::size_t(expect.length)),
                                          *expect.pattern, offset + std::uint64_t(expect.start)))
        status = -EINVAL;
    if (flags->has('q')) return status;
    if (flags->has('v')) print_dump(buffer.bytes().first(std::size_t(range->length)), offset);
    std::uint64_t length = std::uint64_t(range->length);
    print_result({"read", offset, length, length, 1, seconds}, flags->has('C'));
    return status;
}

int io_write(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "bcCfnpP:qs:uz");
    if (!flags || flags->operands.size() != 2) return show_synopsis("write");
    if (!write_flags_fit(*flags)) return -EINVAL;
    auto range = parse_range(*flags);
    if (!range) return -EINVAL;
    if (range->length > largest_request && !flags->has('n')) {
        std::printf("length cannot exceed %lld without -n, given %s\n", static_cast<long long>(largest_request),
                    flags->operands[1].c_str());
        return -EINVAL;
    }
    if ((flags->has('b') || flags->has('c')) && !sector_aligned(*range)) return -EINVAL;
    auto length = std::size_t(range->length);
    auto offset = std::uint64_t(range->offset);
    AlignedBuffer buffer;
    if (!flags->has('z')) {
        buffer = write_data(*flags, length);
        if (!buffer) return -EINVAL;
    }
    Bytes data = buffer.bytes().first(flags->has('z') ? 0 : length);
    IoVector parts(data);
    Image& image = *session.image();
    Durability durability = flags->has('f') ? Durability::fua : Durability::cached;
    ZeroFlags zero{.may_unmap = flags->has('u'), .no_fallback = flags->has('n'), .durability = durability};
    CompressedWrites* compressed = image.capabilities().compressed;
    if (flags->has('c') && !compressed) return report_failure("write", Error("", ENOTSUP));
    auto start = IoClock::now();
    Result<void> result =
        session.tool().run(flags->has('b')   ? write_state(image.capabilities().snapshots, offset, parts.const_spans())
                           : flags->has('c') ? compressed->write_compressed(offset, parts.const_spans())
                           : flags->has('z') ? write_zeroes(image, offset, length, zero)
                                             : image.write(offset, parts.const_spans(), durability));
    double seconds = seconds_since(start);
    if (!result.ok()) return report_failure("write", result.error());
    if (!flags->has('q')) print_result({"wrote", offset, length, length, 1, seconds}, flags->has('C'));
    return 0;
}

int io_readv(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "CP:qv");
    if (!flags || flags->operands.size() < 2) return show_synopsis("readv");
    auto request = parse_vector(*flags, unread_pattern);
    if (!request) return -EINVAL;
    auto start = IoClock::now();
    Result<void> result = session.tool().run(session.read(request->offset, request->parts.spans()));
    double seconds = seconds_since(start);
    if (!result.ok()) return report_failure("readv", result.error());
    return finish_read(*request, *flags, seconds);
}

int io_writev(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "CfpP:q");
    if (!flags || flags->operands.size() < 2) return show_synopsis("writev");
    auto request = parse_vector(*flags, default_pattern);
    if (!request) return -EINVAL;
    Durability durability = flags->has('f') ? Durability::fua : Durability::cached;
    auto start = IoClock::now();
    Result<void> result =
        session.tool().run(session.image()->write(request->offset, request->parts.const_spans(), durability));
    double seconds = seconds_since(start);
    if (!result.ok()) return report_failure("writev", result.error());
    std::uint64_t length = request->length();
    if (!flags->has('q')) print_result({"wrote", request->offset, length, length, 1, seconds}, flags->has('C'));
    return 0;
}

} // namespace vmm::block
