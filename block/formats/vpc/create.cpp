#include "block/formats/vpc/image.h"
#include "block/formats/vpc/vpc.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <random>

namespace vmm::block {

namespace {

using namespace vpc;

constexpr OptionSpec open_options[] = {
    {"force_size_calc", OptionType::string, "accepted: the size is the one the creator's kind means"},
};

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size"},
    {"subformat", OptionType::string,
     "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} "},
    {"force_size", OptionType::boolean,
     "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based "
     "calculation"},
};
constexpr std::int64_t epoch_2000 = 946684800;

int probe(ConstBytes header, std::string_view) {
    std::string_view text(reinterpret_cast<char const*>(header.data()), header.size());
    return header.size() >= sizeof(Footer) && text.starts_with(footer_cookie) ? 100 : 0;
}

Result<Footer> make_footer(std::uint64_t size, bool force_size, bool fixed) {
    Footer footer;
    std::memcpy(footer.cookie.data(), footer_cookie.data(), footer_cookie.size());
    footer.data_offset = fixed ? UINT64_MAX : sizeof(Footer);
    footer.timestamp = std::uint32_t(std::time(nullptr) - epoch_2000);
    footer.type = fixed ? type_fixed : type_dynamic;
    std::uint64_t wanted = div_ceil<std::uint64_t>(size, sector_bytes), sectors = wanted;
    Geometry geometry{65535, 16, 255};
    if (force_size) {
        // Only few makers' disks are believed to be as large as current_size says.
        std::memcpy(footer.creator.data(), "qem2", 4);
    } else if (wanted <= max_chs_sectors) {
        // The next geometry that holds it all.
        do geometry = geometry_of(sectors++);
        while (geometry.total() < wanted);
        wanted = geometry.total();
    }
    footer.cylinders = geometry.cylinders;
    footer.heads = geometry.heads;
    footer.sectors = geometry.sectors;
    footer.original_size = footer.current_size = wanted * sector_bytes;
    if (wanted * sector_bytes > max_disk_bytes) return error("The image size is too large for file format 'vpc'");
    std::random_device random;
    for (std::uint8_t& byte : footer.id) byte = std::uint8_t(random());
    footer.checksum = checksum_of(footer);
    return footer;
}

std::vector<std::uint8_t> dynamic_start(Footer const& footer) {
    DynamicHeader header;
    std::memcpy(header.cookie.data(), dynamic_cookie.data(), dynamic_cookie.size());
    header.table_offset = sizeof footer + sizeof header;
    header.entries = std::uint32_t(div_ceil<std::uint64_t>(footer.current_size, default_block_bytes));
    header.checksum = checksum_of(header);
    std::uint64_t table = align_up<std::uint64_t>(std::uint64_t(header.entries) * 4, sector_bytes);
    std::vector<std::uint8_t> start(header.table_offset + table + sizeof footer, 0xff);
    std::memcpy(start.data(), &footer, sizeof footer);
    std::memcpy(start.data() + sizeof footer, &header, sizeof header);
    std::memcpy(start.data() + start.size() - sizeof footer, &footer, sizeof footer);
    return start;
}

Task<Result<void>> create(BlockContext& context, CreateRequest request) {
    std::string subformat = request.options.text_or("subformat", "dynamic");
    if (subformat != "dynamic" && subformat != "fixed")
        co_return error("Parameter 'subformat' does not accept value '{}'", subformat);
    CO_TRY_ASSIGN(bool force_size, request.options.boolean("force_size", false));
    if (request.size_bytes > max_disk_bytes) co_return error("The image size is too large for file format 'vpc'");
    bool fixed = subformat == "fixed";
    CO_TRY_ASSIGN(Footer footer, make_footer(request.size_bytes, force_size, fixed));
    std::uint64_t size = footer.current_size;
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, fixed ? size : 0, request.file_options));
    if (fixed) {
        ConstBytes bytes(reinterpret_cast<std::uint8_t const*>(&footer), sizeof footer);
        CO_TRY(co_await write_bytes(*file, size, bytes));
    } else {
        std::vector<std::uint8_t> start = dynamic_start(footer);
        CO_TRY(co_await write_bytes(*file, 0, start));
    }
    Result<void> result = co_await file->flush();
    co_return result;
}

} // namespace

Format vpc_format() {
    return {.name = "vpc",
            .probe = probe,
            .open = vpc::open,
            .create = create,
            .create_options = create_options,
            .open_options = open_options};
}

} // namespace vmm::block
