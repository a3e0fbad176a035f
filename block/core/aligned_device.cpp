#include "block/core/aligned_device.h"

#include "block/core/capabilities.h"
#include "block/core/debug_events.h"
#include "block/core/sync.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block {

namespace {

class AlignedDevice final : public BlockDevice, public SparseCapable {
public:
    AlignedDevice(std::unique_ptr<BlockDevice> inner, Limits limits) : inner_(std::move(inner)), limits_(limits) {}

    std::uint64_t size_bytes() const override { return inner_->size_bytes(); }
    bool read_only() const override { return inner_->read_only(); }
    Limits limits() const override {
        Limits open = limits_;
        open.opt_transfer = std::max(open.opt_transfer, open.request_alignment);
        open.request_alignment = open.memory_alignment = 1;
        return open;
    }
    Capabilities capabilities() override {
        Capabilities can = inner_->capabilities();
        if (can.sparse) can.sparse = this;
        return can;
    }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> flush() override { return inner_->flush(); }
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override;

private:
    Result<void> check(std::uint64_t offset, std::uint64_t length) const {
        return check_range(offset, length, limits_.growable ? INT64_MAX : size_bytes());
    }
    bool fits(std::uint64_t offset, std::span<iovec const> parts) const {
        if (offset % limits_.request_alignment) return false;
        std::size_t total = 0;
        for (iovec const& part : parts) {
            if (reinterpret_cast<std::uintptr_t>(part.iov_base) % limits_.memory_alignment) return false;
            if (part.iov_len % limits_.memory_alignment) return false;
            total += part.iov_len;
        }
        return total % limits_.request_alignment == 0;
    }
    // Writes [offset, offset + n) of one bounce buffer's worth: whole sectors around it, the caller holds the range.
    Task<Result<void>> write_bounced(std::uint64_t offset, ConstIoSpans from, std::size_t skip, std::size_t length,
                                     Durability durability);

    static constexpr std::size_t bounce_bytes = 1 << 20;
    std::unique_ptr<BlockDevice> inner_;
    Limits limits_;
    RangeLocks writes_; // every write: an aligned one must not land between the halves of a read-modify-write
};

Task<Result<void>> AlignedDevice::read(std::uint64_t offset, IoSpans to) {
    if (fits(offset, to.parts)) {
        Result<void> direct = co_await inner_->read(offset, to);
        co_return direct;
    }
    std::uint64_t length = to.size_bytes();
    CO_TRY(check(offset, length));
    std::uint64_t const alignment = limits_.request_alignment;
    AlignedBuffer bounce(std::min<std::uint64_t>(align_up(length + 2 * alignment, alignment), bounce_bytes),
                         std::max<std::size_t>(4096, limits_.memory_alignment));
    if (!bounce) co_return Error("Out of memory", ENOMEM);
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t start = align_down(offset + done, alignment);
        std::uint64_t end = std::min(align_up(offset + length, alignment), start + bounce.size());
        Bytes whole(bounce.data(), end - start);
        CO_TRY(co_await read_bytes(*inner_, start, whole));
        std::size_t head = offset + done - start;
        std::size_t n = std::min<std::uint64_t>(whole.size() - head, length - done);
        copy_to_spans(to, done, ConstBytes(bounce.data() + head, n));
        done += n;
    }
    co_return Result<void>{};
}

Task<Result<void>> AlignedDevice::write_bounced(std::uint64_t offset, ConstIoSpans from, std::size_t skip,
                                                std::size_t length, Durability durability) {
    std::uint64_t const alignment = limits_.request_alignment;
    std::uint64_t start = align_down(offset, alignment), end = align_up(offset + length, alignment);
    AlignedBuffer bounce(end - start, std::max<std::size_t>(4096, limits_.memory_alignment));
    if (!bounce) co_return Error("Out of memory", ENOMEM);
    DebugEvents* const debug = inner_->capabilities().debug;
    if (start != offset) {
        Bytes head(bounce.data(), alignment);
        if (debug) co_await debug->event(BlkdebugEvent::pwritev_rmw_head);
        CO_TRY(co_await read_bytes(*inner_, start, head));
        if (debug) co_await debug->event(BlkdebugEvent::pwritev_rmw_after_head);
    }
    if (end != offset + length && (start == offset || end - alignment != start)) {
        Bytes tail(bounce.data() + bounce.size() - alignment, alignment);
        if (debug) co_await debug->event(BlkdebugEvent::pwritev_rmw_tail);
        CO_TRY(co_await read_bytes(*inner_, end - alignment, tail));
        if (debug) co_await debug->event(BlkdebugEvent::pwritev_rmw_after_tail);
    }
    copy_from_spans(from, skip, Bytes(bounce.data() + (offset - start), length));
    ConstBytes whole = bounce.bytes();
    Result<void> result = co_await write_bytes(*inner_, start, whole, durability);
    co_return result;
}

Task<Result<void>> AlignedDevice::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    std::uint64_t length = from.size_bytes();
    CO_TRY(check(offset, length));
    if (length == 0) co_return Result<void>{};
    std::uint64_t const alignment = limits_.request_alignment;
    std::uint64_t start = align_down(offset, alignment), end = align_up(offset + length, alignment);
    RangeLocks::Hold hold = co_await writes_.lock(start, end - start);
    if (fits(offset, from.parts)) {
        Result<void> direct = co_await inner_->write(offset, from, durability);
        co_return direct;
    }
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t room = bounce_bytes - (offset + done) % alignment;
        std::size_t n = std::min<std::uint64_t>(room, length - done);
        CO_TRY(co_await write_bounced(offset + done, from, done, n, durability));
        done += n;
    }
    co_return Result<void>{};
}

Task<Result<void>> AlignedDevice::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check(offset, length));
    std::uint64_t const alignment = limits_.request_alignment;
    std::uint64_t body = std::min(align_up(offset, alignment), offset + length);
    std::uint64_t body_end = std::max(body, align_down(offset + length, alignment));
    std::vector<std::uint8_t> zeroes(alignment);
    if (body > offset) {
        ConstBytes head(zeroes.data(), body - offset);
        CO_TRY(co_await write_bytes(*this, offset, head, flags.durability));
    }
    if (body_end > body) {
        RangeLocks::Hold hold = co_await writes_.lock(body, body_end - body);
        CO_TRY(co_await inner_->capabilities().sparse->write_zeroes(body, body_end - body, flags));
    }
    if (offset + length > body_end) {
        ConstBytes tail(zeroes.data(), offset + length - body_end);
        CO_TRY(co_await write_bytes(*this, body_end, tail, flags.durability));
    }
    co_return Result<void>{};
}

Task<Result<void>> AlignedDevice::discard(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check(offset, length));
    std::uint64_t start = align_up<std::uint64_t>(offset, limits_.request_alignment);
    std::uint64_t end = align_down<std::uint64_t>(offset + length, limits_.request_alignment);
    if (end <= start) co_return Result<void>{};
    RangeLocks::Hold hold = co_await writes_.lock(start, end - start);
    Result<void> result = co_await inner_->capabilities().sparse->discard(start, end - start);
    co_return result;
}

} // namespace

std::unique_ptr<BlockDevice> align_requests(std::unique_ptr<BlockDevice> inner) {
    Limits limits = inner->limits();
    if (limits.request_alignment <= 1 && limits.memory_alignment <= 1) return inner;
    return std::make_unique<AlignedDevice>(std::move(inner), limits);
}

} // namespace vmm::block
