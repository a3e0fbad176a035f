#include "block/core/block_device.h"

#include "block/core/capabilities.h"
#include "block/core/image.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block {

Task<Result<void>> read_bytes(BlockDevice& device, std::uint64_t offset, Bytes to) {
    iovec part{to.data(), to.size()};
    IoSpans spans{std::span<iovec const>(&part, 1)};
    Result<void> result = co_await device.read(offset, spans);
    co_return result;
}

Task<Result<void>> write_bytes(BlockDevice& device, std::uint64_t offset, ConstBytes from, Durability durability) {
    iovec part{const_cast<std::uint8_t*>(from.data()), from.size()};
    ConstIoSpans spans{std::span<iovec const>(&part, 1)};
    Result<void> result = co_await device.write(offset, spans, durability);
    co_return result;
}

Result<void> check_range(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
    if (offset > size || length > size - offset)
        return Error(fmt::format("Request for bytes {} to {} lies beyond the end of the device ({} bytes)", offset,
                                 offset + length, size),
                     EIO);
    return {};
}

namespace {

Task<Result<void>> write_zero_buffers(BlockDevice& device, std::uint64_t offset, std::uint64_t length,
                                      Durability durability) {
    constexpr std::size_t chunk = 1 << 20;
    AlignedBuffer zeroes(std::min<std::uint64_t>(length, chunk));
    if (!zeroes) co_return Error("Out of memory", ENOMEM);
    std::ranges::fill(zeroes.bytes(), 0);
    while (length > 0) {
        std::size_t n = std::min<std::uint64_t>(length, zeroes.size());
        ConstBytes part(zeroes.data(), n);
        CO_TRY(co_await write_bytes(device, offset, part, durability));
        offset += n;
        length -= n;
    }
    co_return Result<void>{};
}

} // namespace

Task<Result<void>> write_zeroes(BlockDevice& device, std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check_range(offset, length, device.limits().growable ? INT64_MAX : device.size_bytes()));
    if (length == 0) co_return Result<void>{};
    if (SparseCapable* sparse = device.capabilities().sparse) {
        Result<void> result = co_await sparse->write_zeroes(offset, length, flags);
        if (result.ok() || flags.no_fallback || result.error().errno_value() != ENOTSUP) co_return result;
    } else if (flags.no_fallback) {
        co_return Error("Operation not supported", ENOTSUP);
    }
    Result<void> result = co_await write_zero_buffers(device, offset, length, flags.durability);
    co_return result;
}

Task<Result<void>> discard(BlockDevice& device, std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check_range(offset, length, device.size_bytes()));
    SparseCapable* sparse = device.capabilities().sparse;
    if (!sparse || length == 0) co_return Result<void>{};
    Result<void> result = co_await sparse->discard(offset, length);
    co_return result;
}

namespace {
constexpr std::string_view preallocation_names[] = {"off", "metadata", "falloc", "full"};
}

std::string_view preallocation_name(Preallocation mode) { return preallocation_names[std::size_t(mode)]; }

Result<Preallocation> parse_preallocation(std::string_view name) {
    for (std::size_t i = 0; i < std::size(preallocation_names); ++i)
        if (preallocation_names[i] == name) return Preallocation(i);
    return error("Parameter 'preallocation' does not accept value '{}'", name);
}

Task<Result<bool>> write_if_zero(Image& image, std::uint64_t offset, ConstIoSpans from, Durability durability) {
    SparseCapable* sparse = image.capabilities().sparse;
    if (!sparse || from.size_bytes() == 0 || !is_zero(from)) co_return false;
    ZeroFlags flags;
    flags.may_unmap = image.zero_detection() == DetectZeroes::unmap;
    flags.no_fallback = true; // which would come back to write()
    flags.durability = durability;
    Result<void> zeroed = co_await sparse->write_zeroes(offset, from.size_bytes(), flags);
    if (zeroed.ok()) co_return true;
    if (zeroed.error().errno_value() == ENOTSUP) co_return false;
    co_return zeroed.error();
}

} // namespace vmm::block
