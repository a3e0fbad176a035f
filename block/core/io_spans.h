// Scatter-gather buffers of a block request.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vmm::block {

using Bytes = std::span<std::uint8_t>;
using ConstBytes = std::span<std::uint8_t const>;

// Memory to read into: a view. The iovec array and what it points to stay the caller's and must live and stay unmoved
// until the request's task has finished. Empty parts are allowed.
struct IoSpans {
    std::span<iovec const> parts;
    std::size_t size_bytes() const;
};

// Memory to write from: the same, not written to. A guest may change it while the request runs.
struct ConstIoSpans {
    std::span<iovec const> parts;
    ConstIoSpans(std::span<iovec const> p) : parts(p) {}
    ConstIoSpans(IoSpans other) : parts(other.parts) {}
    std::size_t size_bytes() const;
};

// An iovec array that owns its array (not the memory). Convertible to the views while it lives.
class IoVector {
public:
    IoVector() = default;
    explicit IoVector(Bytes one) { append(one); }
    explicit IoVector(ConstBytes one) { append(one); }
    // The bytes [offset, offset + length) of `whole`; the range must lie inside it.
    static IoVector slice(std::span<iovec const> whole, std::size_t offset, std::size_t length);

    void append(Bytes part) { parts_.push_back({part.data(), part.size()}); }
    void append(ConstBytes part) { parts_.push_back({const_cast<std::uint8_t*>(part.data()), part.size()}); }
    void append(IoVector const& other) { parts_.insert(parts_.end(), other.parts_.begin(), other.parts_.end()); }

    std::size_t size_bytes() const;
    IoSpans spans() const { return IoSpans{parts_}; }
    ConstIoSpans const_spans() const { return ConstIoSpans{parts_}; }

private:
    std::vector<iovec> parts_;
};

// Copies between scattered memory and a flat buffer, starting `skip` bytes into the parts; buffer.size() bytes, which
// must fit.
void copy_to_spans(IoSpans to, std::size_t skip, ConstBytes from);
void copy_from_spans(ConstIoSpans from, std::size_t skip, Bytes to);
// Zeroes length bytes from `skip` on.
void zero_spans(IoSpans to, std::size_t skip, std::size_t length);
// True when every byte is zero; fast (vectorised by the compiler).
bool is_zero(ConstBytes bytes);
bool is_zero(ConstIoSpans spans);

// Page-aligned memory for O_DIRECT and bounce buffers. Zeroed only when asked.
class AlignedBuffer {
public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t size, std::size_t alignment = 4096);
    AlignedBuffer(AlignedBuffer&& other) noexcept;
    AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
    ~AlignedBuffer();
    // False when the memory could not be had (size > 0): check before use where the size comes from a file.
    explicit operator bool() const { return data_ != nullptr; }
    std::uint8_t* data() const { return data_; }
    std::size_t size() const { return size_; }
    Bytes bytes() const { return {data_, size_}; }

private:
    std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace vmm::block
