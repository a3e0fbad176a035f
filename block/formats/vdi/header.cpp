#include "block/formats/vdi/header.h"

#include <sys/random.h>

namespace vmm::block::vdi {

Result<void> validate(Header const& h, std::string const& filename) {
    auto bad = [&](std::string_view field, std::uint64_t value, std::string_view why) {
        return error("Could not open '{}': VDI header field {} is {}: {}", filename, field, value, why);
    };
    if (h.magic != signature) return error("Could not open '{}': Image not in VDI format (bad signature)", filename);
    if (h.version != version_1_1) return bad("version", h.version >> 16, "only version 1.1 is supported");
    if (h.image_type != type_dynamic && h.image_type != type_static)
        return bad("image_type", h.image_type, "only dynamic (1) and static (2) images are supported");
    if (h.sector_size != sector_bytes) return bad("sector_size", h.sector_size, "must be 512");
    if (h.block_size != block_bytes) return bad("block_size", h.block_size, "must be 1048576");
    if (h.block_extra != 0) return bad("block_extra", h.block_extra, "must be 0");
    if (h.blocks_in_image > max_blocks) return bad("blocks_in_image", h.blocks_in_image, "too many blocks");
    if (h.offset_bmap % sector_bytes || h.offset_bmap < sizeof(Header))
        return bad("offset_bmap", h.offset_bmap, "must be a multiple of 512 behind the header");
    if (h.offset_data % sector_bytes) return bad("offset_data", h.offset_data, "must be a multiple of 512");
    if (std::uint64_t(h.offset_bmap) + std::uint64_t(h.blocks_in_image) * 4 > h.offset_data)
        return bad("offset_data", h.offset_data, "the block map reaches beyond it");
    if (h.disk_size > std::uint64_t(h.blocks_in_image) * block_bytes)
        return bad("disk_size", h.disk_size, "larger than blocks_in_image blocks");
    if (h.blocks_allocated > max_blocks) return bad("blocks_allocated", h.blocks_allocated, "too many blocks");
    if (h.link_id != Uuid{})
        return error("Could not open '{}': VDI header field link_id is set: differencing images "
                     "are not supported",
                     filename);
    if (h.parent_id != Uuid{})
        return error("Could not open '{}': VDI header field parent_id is set: differencing "
                     "images are not supported",
                     filename);
    return {};
}

Uuid random_uuid() {
    Uuid id{};
    [[maybe_unused]] ssize_t got = getrandom(id.data(), id.size(), 0); // 16 bytes never come short
    id[7] = std::uint8_t((id[7] & 0x0f) | 0x40); // version 4; VDI stores the first fields little-endian
    id[8] = std::uint8_t((id[8] & 0x3f) | 0x80);
    return id;
}

} // namespace vmm::block::vdi
