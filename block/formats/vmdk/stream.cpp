// Compressed grains: each is written once, whole, at the end of the file.
#include "block/formats/vmdk/image.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::block::vmdk {

Task<Result<void>> VmdkImage::read_compressed(Mapping was, Bytes unit) {
    Extent& extent = extent_at(was.start);
    std::uint64_t at = was.host_offset, size = 2 * extent.grain_bytes;
    if (extent.markers) {
        GrainMarker marker;
        Bytes bytes(reinterpret_cast<std::uint8_t*>(&marker), sizeof marker);
        CO_TRY(co_await read_bytes(*extent.device, at, bytes));
        if (marker.sector != (was.start - extent.start) / sector_bytes || marker.size > size)
            co_return Error(fmt::format("'{}': the marker of the grain at sector {} is damaged", extent.filename,
                                        was.start / sector_bytes),
                            EIO);
        at += sizeof marker;
        size = marker.size;
    }
    std::vector<std::uint8_t> packed(
        std::min(size, extent.device->size_bytes() - std::min(at, extent.device->size_bytes())));
    CO_TRY(co_await read_bytes(*extent.device, at, packed));
    // The last grain of an odd-sized disk may be stored whole.
    Result<void> result = co_await inflate_on_pool(context_, DeflateKind::zlib, std::move(packed), unit);
    co_return result;
}

Task<Result<void>> VmdkImage::store_compressed(std::uint64_t grain, std::vector<std::uint8_t> content) {
    Extent& extent = *parts_.extents[0];
    ConstBytes plain(content);
    std::vector<std::uint8_t> packed =
        co_await deflate_on_pool(context_, DeflateKind::zlib, 15, plain, 2 * extent.grain_bytes - sizeof(GrainMarker));
    if (packed.empty()) co_return Error("Could not compress a grain", EIO);
    GrainMarker marker{.sector = grain / sector_bytes, .size = std::uint32_t(packed.size())};
    std::vector<std::uint8_t> stored(align_up<std::size_t>(sizeof marker + packed.size(), sector_bytes));
    std::memcpy(stored.data(), &marker, sizeof marker);
    std::ranges::copy(packed, stored.begin() + sizeof marker);
    CO_TRY(co_await extent.pin_table(grain));
    std::uint64_t at = extent.append(stored.size());
    if (at / sector_bytes > UINT32_MAX) co_return Error("The VMDK extent is full", ENOSPC);
    CO_TRY(co_await write_bytes(*extent.device, at, stored));
    extent.set_entry(grain, std::uint32_t(at / sector_bytes));
    co_return Result<void>{};
}

Task<Result<void>> VmdkImage::write_stream(std::uint64_t offset, ConstIoSpans from) {
    std::uint64_t length = from.size_bytes();
    for (std::uint64_t done = 0; done < length;) {
        Extent& extent = *parts_.extents[0];
        CO_TRY_ASSIGN(std::optional<Mapping> at, find(offset + done));
        if (!at) {
            CO_TRY(co_await load(offset + done));
            continue;
        }
        std::uint64_t n = std::min(length - done, at->start + at->length - (offset + done));
        RangeLocks::Hold hold = co_await allocations_.lock(at->start, at->length);
        CO_TRY_ASSIGN(std::optional<Mapping> now, find(offset + done));
        if (!now || now->kind == Mapping::Kind::compressed)
            co_return Error("Could not write to allocated cluster for streamOptimized", EIO);
        std::vector<std::uint8_t> content(extent.grain_bytes);
        copy_from_spans(IoVector::slice(from.parts, done, n).const_spans(), 0,
                        Bytes(content).subspan(offset + done - at->start, n));
        CO_TRY(co_await store_compressed(at->start, std::move(content)));
        done += n;
    }
    co_return Result<void>{};
}

Task<Result<void>> VmdkImage::write_compressed(std::uint64_t offset, ConstIoSpans from) {
    CO_TRY(check_range(offset, from.size_bytes(), size_));
    if (!stream_) {
        Result<void> plain = co_await write(offset, from, Durability::cached);
        co_return plain;
    }
    if (offset % unit_) co_return Error("Compressed writes must be whole grains", EINVAL);
    CO_TRY(co_await before_first_write());
    Result<void> result = co_await write_stream(offset, from);
    co_return result;
}

Task<Result<void>> VmdkImage::finish_compressed() {
    if (!stream_) {
        Result<void> flushed = co_await flush();
        co_return flushed;
    }
    Extent& extent = *parts_.extents[0];
    std::vector<std::uint8_t> end_of_stream(sector_bytes); // a marker of zeroes
    CO_TRY(co_await write_bytes(*extent.device, extent.append(sector_bytes), end_of_stream));
    Result<void> result = co_await flush();
    co_return result;
}

} // namespace vmm::block::vmdk
