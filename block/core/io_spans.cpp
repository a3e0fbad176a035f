#include "block/core/io_spans.h"

#include "vmm/base/assert.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace vmm::block {

namespace {

std::size_t total(std::span<iovec const> parts) {
    std::size_t sum = 0;
    for (iovec const& part : parts) sum += part.iov_len;
    return sum;
}

// Calls f(pointer, length) for each piece of [skip, skip + length) of `parts`.
template <class F> void for_each_piece(std::span<iovec const> parts, std::size_t skip, std::size_t length, F f) {
    for (iovec const& part : parts) {
        if (length == 0) return;
        if (skip >= part.iov_len) {
            skip -= part.iov_len;
            continue;
        }
        std::size_t n = std::min(part.iov_len - skip, length);
        f(static_cast<std::uint8_t*>(part.iov_base) + skip, n);
        skip = 0;
        length -= n;
    }
    VMM_ASSERT(length == 0);
}

} // namespace

std::size_t IoSpans::size_bytes() const { return total(parts); }
std::size_t ConstIoSpans::size_bytes() const { return total(parts); }
std::size_t IoVector::size_bytes() const { return total(parts_); }

IoVector IoVector::slice(std::span<iovec const> whole, std::size_t offset, std::size_t length) {
    IoVector result;
    for_each_piece(whole, offset, length, [&](std::uint8_t* p, std::size_t n) { result.append(Bytes{p, n}); });
    return result;
}

void copy_to_spans(IoSpans to, std::size_t skip, ConstBytes from) {
    std::uint8_t const* source = from.data();
    for_each_piece(to.parts, skip, from.size(), [&](std::uint8_t* p, std::size_t n) {
        std::memcpy(p, source, n);
        source += n;
    });
}

void copy_from_spans(ConstIoSpans from, std::size_t skip, Bytes to) {
    std::uint8_t* target = to.data();
    for_each_piece(from.parts, skip, to.size(), [&](std::uint8_t* p, std::size_t n) {
        std::memcpy(target, p, n);
        target += n;
    });
}

void zero_spans(IoSpans to, std::size_t skip, std::size_t length) {
    for_each_piece(to.parts, skip, length, [](std::uint8_t* p, std::size_t n) { std::memset(p, 0, n); });
}

bool is_zero(ConstBytes bytes) {
    // The first bytes by hand, then each byte against the one 16 before it, at memcmp's speed.
    std::size_t head = std::min<std::size_t>(bytes.size(), 16);
    for (std::size_t i = 0; i < head; ++i)
        if (bytes[i] != 0) return false;
    return bytes.size() <= 16 || std::memcmp(bytes.data(), bytes.data() + 16, bytes.size() - 16) == 0;
}

bool is_zero(ConstIoSpans spans) {
    return std::ranges::all_of(spans.parts, [](iovec const& part) {
        return is_zero(ConstBytes{static_cast<std::uint8_t const*>(part.iov_base), part.iov_len});
    });
}

AlignedBuffer::AlignedBuffer(std::size_t size, std::size_t alignment) {
    if (size == 0) return;
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, size) != 0) return;
    data_ = static_cast<std::uint8_t*>(memory);
    size_ = size;
}
AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
    if (this != &other) {
        std::free(data_);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
    }
    return *this;
}
AlignedBuffer::~AlignedBuffer() { std::free(data_); }

} // namespace vmm::block
