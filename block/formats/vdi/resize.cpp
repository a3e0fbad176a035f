// Growing a VDI image. The header write at the end switches from the old disk to the new one; a kill before it leaves
// the old one whole.
#include "block/formats/vdi/image.h"
#include "vmm/base/checked.h"

#include <algorithm>

namespace vmm::block::vdi {

Task<Result<void>> VdiImage::move_block(std::uint64_t from, std::uint64_t to) {
    std::vector<std::uint8_t> block(block_bytes);
    CO_TRY(co_await read_bytes(*file_, place_offset(from), block));
    Result<void> result = co_await write_bytes(*file_, place_offset(to), block);
    co_return result;
}

Task<Result<void>> VdiImage::make_room(std::uint64_t blocks, Header& grown) {
    std::uint64_t need = blocks * 4;
    std::uint64_t room = header_.offset_data - header_.offset_bmap;
    if (need <= room) co_return Result<void>{};
    // The new map goes where the first `moved` places are now; their blocks go behind the last one.
    std::uint64_t moved = div_ceil<std::uint64_t>(need, block_bytes);
    std::uint64_t data = std::uint64_t(header_.offset_data) + moved * block_bytes;
    if (data > UINT32_MAX) co_return Error("The block map of the VDI image cannot grow further", EFBIG);
    std::uint64_t next = std::max<std::uint64_t>(header_.blocks_allocated, moved);
    for (std::uint64_t i = 0; i < map_.size(); ++i) {
        if (map_[i] >= moved) continue;
        CO_TRY(co_await move_block(map_[i], next));
        map_[i] = std::uint32_t(next++);
        touch(i, i);
    }
    header_.blocks_allocated = std::uint32_t(next);
    CO_TRY(co_await write_back());
    for (le32& entry : map_)
        if (entry < block_zero) entry = std::uint32_t(entry - moved);
    grown.offset_bmap = std::uint32_t(header_.offset_data);
    grown.offset_data = std::uint32_t(data);
    grown.blocks_allocated = std::uint32_t(next - moved);
    co_return Result<void>{};
}

Task<Result<void>> VdiImage::resize(ResizeRequest request) {
    if (request.preallocation != Preallocation::off)
        co_return error("Unsupported preallocation mode '{}'", preallocation_name(request.preallocation));
    std::uint64_t size = request.new_size_bytes;
    if (size < size_) co_return Error("VDI images cannot be shrunk", ENOTSUP);
    if (size > std::uint64_t(max_blocks) * block_bytes) co_return Error("The new size is too large for VDI", EFBIG);
    size = align_up<std::uint64_t>(size, sector_bytes);
    std::uint64_t blocks = div_ceil<std::uint64_t>(size, block_bytes);
    CO_TRY(co_await flush());
    Header grown = header_;
    if (blocks > map_.size()) {
        CO_TRY(co_await make_room(blocks, grown));
    }
    std::uint64_t old_size = size_, old_blocks = map_.size();
    map_.resize(std::max<std::uint64_t>(blocks, old_blocks), le32(block_free));
    if (header_.image_type == type_static) {
        for (std::uint64_t i = old_blocks; i < map_.size(); ++i) {
            map_[i] = std::uint32_t(grown.blocks_allocated);
            grown.blocks_allocated = grown.blocks_allocated + 1;
        }
        std::uint64_t end = grown.offset_data + std::uint64_t(grown.blocks_allocated) * block_bytes;
        CO_TRY(co_await extend_file(*file_, end));
    }
    grown.disk_size = size;
    grown.blocks_in_image = std::uint32_t(map_.size());
    ConstBytes entries(reinterpret_cast<std::uint8_t const*>(map_.data()), map_.size() * sizeof(le32));
    CO_TRY(co_await write_bytes(*file_, grown.offset_bmap, entries));
    CO_TRY(co_await file_->flush());
    header_ = grown;
    CO_TRY(co_await write_header());
    dirty_.clear();
    header_dirty_ = false;
    size_ = size;
    // The old last block may hold bytes beyond the old end.
    std::uint64_t tail = std::min<std::uint64_t>(align_up<std::uint64_t>(old_size, block_bytes), size) - old_size;
    ZeroFlags flags;
    if (tail > 0) {
        CO_TRY(co_await write_zeroes(old_size, tail, flags));
    }
    Result<void> result = co_await flush();
    co_return result;
}

} // namespace vmm::block::vdi
