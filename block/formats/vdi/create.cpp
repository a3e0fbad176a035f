#include "block/formats/vdi/image.h"
#include "block/formats/vdi/vdi.h"
#include "vmm/base/checked.h"

#include <cstring>

namespace vmm::block {

namespace {

using namespace vdi;

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size"},
    {"static", OptionType::boolean, "VDI static (pre-allocated) image", "off"},
};

int probe(ConstBytes header, std::string_view) {
    return header.size() >= sizeof(Header) && load_le<std::uint32_t>(header.data() + 64) == signature ? 100 : 0;
}

Task<Result<void>> create(BlockContext& context, CreateRequest request) {
    CO_TRY_ASSIGN(bool is_static, request.options.boolean("static", false));
    if (request.size_bytes > std::uint64_t(max_blocks) * block_bytes)
        co_return error("Unsupported VDI image size (size is {:#x}, max supported is {:#x})", request.size_bytes,
                        std::uint64_t(max_blocks) * block_bytes);
    Header header;
    constexpr std::string_view text = "<<< VMM Virtual Disk Image >>>\n";
    std::memcpy(header.text.data(), text.data(), text.size());
    header.disk_size = align_up<std::uint64_t>(request.size_bytes, sector_bytes);
    std::uint32_t blocks = std::uint32_t(div_ceil<std::uint64_t>(header.disk_size, block_bytes));
    std::uint64_t map_bytes = align_up<std::uint64_t>(std::uint64_t(blocks) * 4, sector_bytes);
    header.image_type = is_static ? type_static : type_dynamic;
    header.offset_data = std::uint32_t(header.offset_bmap + map_bytes);
    header.blocks_in_image = blocks;
    header.blocks_allocated = is_static ? blocks : 0;
    header.image_id = random_uuid();
    header.last_snapshot_id = random_uuid();
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, 0, request.file_options));
    std::vector<std::uint8_t> start(sizeof header + map_bytes, 0);
    std::memcpy(start.data(), &header, sizeof header);
    for (std::uint32_t i = 0; i < blocks; ++i) {
        le32 entry(is_static ? i : block_free);
        std::memcpy(start.data() + sizeof header + std::size_t(i) * 4, &entry, 4);
    }
    CO_TRY(co_await write_bytes(*file, 0, start));
    ZeroFlags flags;
    flags.may_unmap = true;
    if (is_static && blocks > 0) {
        CO_TRY(co_await write_zeroes(*file, header.offset_data, std::uint64_t(blocks) * block_bytes, flags));
    }
    Result<void> result = co_await file->flush();
    co_return result;
}

} // namespace

Format vdi_format() {
    return {.name = "vdi", .probe = probe, .open = vdi::open, .create = create, .create_options = create_options};
}

} // namespace vmm::block
