// An image file in memory, mostly holes, as the fuzz targets are given it: "be32 size, then records of be32 offset,
// be16 length, bytes". Formats that put their tables megabytes apart become inputs of a few hundred bytes.
#pragma once
#include "block/core/block_device.h"
#include "block/core/capabilities.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>

namespace vmm::block::fuzz {

// A big-endian field (be16, be32) at `from`.
template <class Field> Field field_at(std::uint8_t const* from) {
    Field field;
    std::memcpy(&field, from, sizeof field);
    return field;
}

class SparseBytes {
public:
    static constexpr std::uint64_t page_bytes = 4096, max_bytes = 64u << 20;

    static SparseBytes decode(ConstBytes input) {
        SparseBytes file;
        if (input.size() < 4) return file;
        file.size_ = std::min<std::uint64_t>(field_at<be32>(input.data()), max_bytes);
        for (input = input.subspan(4); input.size() > 6;) {
            std::uint64_t const offset = field_at<be32>(input.data());
            std::size_t const length = std::min<std::size_t>(field_at<be16>(input.data() + 4), input.size() - 6);
            if (offset < file.size_)
                file.write(offset, input.subspan(6, std::min<std::uint64_t>(length, file.size_ - offset)));
            input = input.subspan(6 + length);
        }
        return file;
    }
    std::uint64_t size() const { return size_; }
    void resize(std::uint64_t size) {
        if (size < size_) {
            pages_.erase(pages_.lower_bound((size + page_bytes - 1) / page_bytes), pages_.end());
            if (auto last = pages_.find(size / page_bytes); last != pages_.end())
                std::fill(last->second.begin() + std::ptrdiff_t(size % page_bytes), last->second.end(), 0);
        }
        size_ = size;
    }
    // Beyond the end: zeroes.
    void read(std::uint64_t offset, Bytes to) const {
        each_page(offset, to.size(), [&](std::uint64_t page, std::size_t in_page, std::size_t at, std::size_t n) {
            if (auto found = pages_.find(page); found != pages_.end())
                std::memcpy(to.data() + at, found->second.data() + in_page, n);
            else
                std::memset(to.data() + at, 0, n);
        });
    }
    void write(std::uint64_t offset, ConstBytes from) {
        size_ = std::max(size_, offset + from.size());
        each_page(offset, from.size(), [&](std::uint64_t page, std::size_t in_page, std::size_t at, std::size_t n) {
            std::memcpy(pages_[page].data() + in_page, from.data() + at, n);
        });
    }

private:
    template <class F> static void each_page(std::uint64_t offset, std::size_t length, F&& visit) {
        for (std::size_t at = 0; at < length;) {
            std::size_t const in_page = (offset + at) % page_bytes, n = std::min(length - at, page_bytes - in_page);
            visit((offset + at) / page_bytes, in_page, at, n);
            at += n;
        }
    }
    std::uint64_t size_ = 0;
    std::map<std::uint64_t, std::array<std::uint8_t, page_bytes>> pages_;
};

// Grows, up to a limit, as a host file does.
class SparseFile final : public BlockDevice, public Resizable {
public:
    SparseFile(SparseBytes bytes, bool read_only) : bytes_(std::move(bytes)), read_only_(read_only) {}
    std::uint64_t size_bytes() const override { return bytes_.size(); }
    bool read_only() const override { return read_only_; }
    Limits limits() const override { return {}; }
    Capabilities capabilities() override { return Capabilities{.resizable = this}; }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override {
        std::uint64_t at = offset;
        for (iovec const& part : to.parts) {
            bytes_.read(at, Bytes(static_cast<std::uint8_t*>(part.iov_base), part.iov_len));
            at += part.iov_len;
        }
        co_return Result<void>{};
    }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability) override {
        VMM_ASSERT(!read_only_);
        std::uint64_t const length = from.size_bytes();
        if (offset > SparseBytes::max_bytes || length > SparseBytes::max_bytes - offset)
            co_return Error("full", ENOSPC);
        for (iovec const& part : from.parts) {
            bytes_.write(offset, ConstBytes(static_cast<std::uint8_t const*>(part.iov_base), part.iov_len));
            offset += part.iov_len;
        }
        co_return Result<void>{};
    }
    Task<Result<void>> flush() override { co_return Result<void>{}; }
    Task<Result<void>> resize(ResizeRequest request) override {
        if (request.new_size_bytes > SparseBytes::max_bytes) co_return Error("full", ENOSPC);
        bytes_.resize(request.new_size_bytes);
        co_return Result<void>{};
    }

private:
    SparseBytes bytes_;
    bool read_only_;
};

} // namespace vmm::block::fuzz
