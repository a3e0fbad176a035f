#include "block/tools/io/requests.h"

#include "block/tools/io/report.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

namespace vmm::block {

namespace {
constexpr std::uint64_t largest_vector = 0x7ffffe00;
}

std::optional<VectorRequest> parse_vector(Flags const& flags, int fill) {
    VectorRequest request;
    auto offset = parse_amount(flags.operands[0]);
    if (!offset) return std::nullopt;
    request.offset = std::uint64_t(*offset);
    if (auto const* text = flags.value('P')) {
        request.pattern = parse_pattern(*text);
        if (!request.pattern) return std::nullopt;
    }
    std::vector<std::size_t> lengths;
    std::uint64_t total = 0;
    for (std::size_t i = 1; i < flags.operands.size(); ++i) {
        auto length = parse_amount(flags.operands[i]);
        if (!length) return std::nullopt;
        if (std::uint64_t(*length) > largest_vector - total) {
            std::printf("The total number of bytes exceed the maximum size %llu\n",
                        static_cast<unsigned long long>(largest_vector));
            return std::nullopt;
        }
        total += std::uint64_t(*length);
        lengths.push_back(std::size_t(*length));
    }
    request.memory = AlignedBuffer(std::max<std::size_t>(total, 1));
    if (!request.memory) {
        std::printf("cannot allocate memory\n");
        return std::nullopt;
    }
    bool writing = fill == default_pattern;
    std::memset(request.memory.data(), writing ? request.pattern.value_or(fill) : fill, request.memory.size());
    std::size_t at = 0;
    for (std::size_t length : lengths) {
        request.parts.append(request.memory.bytes().subspan(at, length));
        at += length;
    }
    return request;
}

bool verify_pattern(ConstBytes bytes, int pattern, std::uint64_t offset) {
    if (std::ranges::all_of(bytes, [pattern](std::uint8_t b) { return b == pattern; })) return true;
    std::printf("Pattern verification failed at offset %llu, %zu bytes\n", static_cast<unsigned long long>(offset),
                bytes.size());
    return false;
}

int finish_read(VectorRequest const& request, Flags const& flags, double seconds) {
    int status = 0;
    if (request.pattern && !verify_pattern(request.bytes(), *request.pattern, request.offset)) status = -EINVAL;
    if (flags.has('q')) return status;
    if (flags.has('v')) print_dump(request.bytes(), request.offset);
    std::uint64_t length = request.length();
    print_result({"read", request.offset, length, length, 1, seconds}, flags.has('C'));
    return status;
}

bool fill_from_file(std::string const& name, Bytes to) {
    std::ifstream file(name, std::ios::binary);
    if (!file) {
        std::fprintf(stderr, "%s: %s\n", name.c_str(), std::strerror(errno));
        return false;
    }
    std::vector<std::uint8_t> content(to.size());
    file.read(reinterpret_cast<char*>(content.data()), std::streamsize(content.size()));
    content.resize(std::size_t(file.gcount()));
    if (content.empty()) {
        std::printf("%s: file is empty\n", name.c_str());
        return false;
    }
    for (std::size_t at = 0; at < to.size(); ++at) to[at] = content[at % content.size()];
    return true;
}

namespace {

// A request in the background: keeps its memory and prints its result.
Task<void> read_later(Image& image, VectorRequest request, Flags flags) {
    auto start = IoClock::now();
    Result<void> result = co_await image.read(request.offset, request.parts.spans());
    if (result.ok())
        finish_read(request, flags, seconds_since(start));
    else
        std::printf("readv failed: %s\n", std::strerror(result.error().errno_value()));
}

Task<void> write_later(Image& image, VectorRequest request, Flags flags, std::uint64_t zero_length) {
    auto start = IoClock::now();
    Durability durability = flags.has('f') ? Durability::fua : Durability::cached;
    bool zero = flags.has('z');
    std::uint64_t length = zero ? zero_length : request.length();
    Result<void> result;
    if (zero) {
        ZeroFlags how{.may_unmap = flags.has('u'), .durability = durability};
        result = co_await write_zeroes(image, request.offset, length, how);
    } else {
        result = co_await image.write(request.offset, request.parts.const_spans(), durability);
    }
    if (!result.ok())
        std::printf("aio_write failed: %s\n", std::strerror(result.error().errno_value()));
    else if (!flags.has('q'))
        print_result({"wrote", request.offset, length, length, 1, seconds_since(start)}, flags.has('C'));
}

} // namespace

int io_aio_read(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "CP:iqv");
    if (!flags || flags->operands.size() < 2) return show_synopsis("aio_read");
    if (flags->has('i')) return 0;
    auto request = parse_vector(*flags, unread_pattern);
    if (!request) return -EINVAL;
    session.start(read_later(*session.image(), std::move(*request), *flags));
    return 0;
}

int io_aio_write(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "CfiP:quz");
    if (!flags || flags->operands.size() < 2) return show_synopsis("aio_write");
    bool zero = flags->has('z');
    if (zero && flags->operands.size() != 2) {
        std::printf("-z supports only a single length parameter\n");
        return -EINVAL;
    }
    if (flags->has('u') && !zero) return std::printf("-u requires -z to be specified\n"), -EINVAL;
    if (flags->has('i')) return 0;
    if (zero) {
        auto offset = parse_amount(flags->operands[0]);
        auto length = offset ? parse_amount(flags->operands[1]) : std::nullopt;
        if (!length) return -EINVAL;
        VectorRequest request;
        request.offset = std::uint64_t(*offset);
        session.start(write_later(*session.image(), std::move(request), *flags, std::uint64_t(*length)));
        return 0;
    }
    auto request = parse_vector(*flags, default_pattern);
    if (!request) return -EINVAL;
    session.start(write_later(*session.image(), std::move(*request), *flags, 0));
    return 0;
}

int io_aio_flush(IoSession& session, std::span<std::string const>) {
    session.drain();
    return 0;
}

} // namespace vmm::block
