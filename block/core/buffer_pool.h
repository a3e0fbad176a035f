// BufferPool: buffers of one size that are used again: fresh memory costs a page fault and a cleared page every 4 KiB,
// which is as much as copying the data through it.
#pragma once
#include "block/core/io_spans.h"

#include <cstddef>
#include <utility>
#include <vector>

namespace vmm::block {

// Hands out page-aligned buffers; the one given back last comes first (it is the one still in the CPU's caches). Grows
// as needed and keeps what it has until it dies, after all leases. Loop thread only.
class BufferPool {
public:
    class [[nodiscard]] Lease {
    public:
        Lease() = default;
        Lease(Lease&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), buffer_(std::move(other.buffer_)) {}
        Lease& operator=(Lease&& other) noexcept {
            give_back();
            pool_ = std::exchange(other.pool_, nullptr);
            buffer_ = std::move(other.buffer_);
            return *this;
        }
        ~Lease() { give_back(); }
        // False when the memory could not be had.
        explicit operator bool() const { return bool(buffer_); }
        // The first `length` bytes; what they hold is left from earlier use.
        Bytes bytes(std::size_t length) const { return buffer_.bytes().first(length); }

    private:
        friend class BufferPool;
        Lease(BufferPool* pool, AlignedBuffer buffer) : pool_(pool), buffer_(std::move(buffer)) {}
        void give_back() {
            if (pool_ && buffer_) pool_->spare_.push_back(std::move(buffer_));
            pool_ = nullptr;
        }
        BufferPool* pool_ = nullptr;
        AlignedBuffer buffer_;
    };

    explicit BufferPool(std::size_t buffer_bytes) : buffer_bytes_(buffer_bytes) {}
    BufferPool(BufferPool const&) = delete;
    BufferPool& operator=(BufferPool const&) = delete;

    std::size_t buffer_bytes() const { return buffer_bytes_; }
    Lease take() {
        if (spare_.empty()) return Lease(this, AlignedBuffer(buffer_bytes_));
        AlignedBuffer buffer = std::move(spare_.back());
        spare_.pop_back();
        return Lease(this, std::move(buffer));
    }

private:
    std::size_t buffer_bytes_;
    std::vector<AlignedBuffer> spare_;
};

} // namespace vmm::block
