#include "block/formats/vhdx/image.h"
#include "block/formats/vhdx/vhdx.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cstring>

namespace vmm::block {

namespace {

using namespace vhdx;

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size; max of 64TB."},
    {"log_size", OptionType::size, "Log size; min 1MB.", "1048576"},
    {"block_size", OptionType::size, "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.",
     "0"},
    {"subformat", OptionType::string, "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'."},
    {"block_state_zero", OptionType::boolean,
     "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using 'qemu-img "
     "convert' with subformat=dynamic."},
};

struct Plan {
    Disk disk;
    std::uint32_t log_bytes = 0, bat_bytes = 0;
    bool fixed = false;
    std::uint64_t bat_offset() const { return MiB + log_bytes; }
    std::uint64_t metadata_offset() const { return bat_offset() + bat_bytes; }
    std::uint64_t data_offset() const { return metadata_offset() + MiB; }
};

int probe(ConstBytes header, std::string_view) {
    std::string_view text(reinterpret_cast<char const*>(header.data()), header.size());
    return text.starts_with(file_signature) ? 100 : 0;
}

std::uint64_t automatic_block_bytes(std::uint64_t size) {
    if (size > 32 * TiB) return 64 * MiB;
    if (size > 100 * GiB) return 32 * MiB;
    if (size > GiB) return 16 * MiB;
    return 8 * MiB;
}

Result<Plan> make_plan(CreateRequest const& request) {
    OptionValues const& o = request.options;
    Plan plan;
    std::string subformat = o.text_or("subformat", "dynamic");
    if (subformat != "dynamic" && subformat != "fixed")
        return error("Parameter 'subformat' does not accept value '{}'", subformat);
    plan.fixed = subformat == "fixed";
    TRY(o.boolean("block_state_zero", true)); // a block never written reads as zero here in either state
    if (request.size_bytes > max_disk_bytes) return error("Image size too large; max of 64TB");
    plan.disk.size = align_up<std::uint64_t>(request.size_bytes, 512);
    plan.disk.sector_bytes = 512;
    std::uint64_t const log = TRY(o.size("log_size", MiB));
    if (log == 0) return error("Log size must be a multiple of 1 MB");
    if (log > max_log_bytes) return error("Log size must be at most {} bytes", max_log_bytes);
    plan.log_bytes = std::uint32_t(align_up<std::uint64_t>(log, MiB));
    std::uint64_t block = TRY(o.size("block_size", 0));
    if (block == 0) block = automatic_block_bytes(plan.disk.size);
    block = block > max_block_bytes ? max_block_bytes : align_up<std::uint64_t>(block, min_block_bytes);
    if (!is_power_of_two(block)) return error("Block size must be a power of two");
    plan.disk.block_bytes = std::uint32_t(block);
    std::uint64_t bat = std::max<std::uint64_t>(1, plan.disk.bat_entries()) * sizeof(le64);
    plan.bat_bytes = std::uint32_t(align_up<std::uint64_t>(bat, MiB));
    return plan;
}

std::vector<std::uint8_t> region_table(Plan const& plan) {
    std::vector<std::uint8_t> table(region_table_bytes);
    RegionTableHeader header{{'r', 'e', 'g', 'i'}, {}, 2, {}};
    RegionEntry entries[] = {{region_bat, plan.bat_offset(), plan.bat_bytes, 1},
                             {region_metadata, plan.metadata_offset(), std::uint32_t(MiB), 1}};
    std::memcpy(table.data(), &header, sizeof header);
    std::memcpy(table.data() + sizeof header, entries, sizeof entries);
    store_le<std::uint32_t>(table.data() + 4, checksum_of(table));
    return table;
}

std::vector<std::uint8_t> metadata_region(Plan const& plan) {
    std::vector<std::uint8_t> region(metadata_table_bytes + 64);
    std::memcpy(region.data(), "metadata", 8);
    std::uint16_t count = 0;
    std::uint32_t at = metadata_table_bytes;
    auto add = [&](Guid const& id, void const* value, std::uint32_t length, std::uint32_t flags) {
        MetadataEntry entry{id, at, length, flags, {}};
        std::memcpy(region.data() + sizeof(MetadataHeader) + count * sizeof entry, &entry, sizeof entry);
        std::memcpy(region.data() + at, value, length);
        at += length;
        store_le<std::uint16_t>(region.data() + 10, ++count);
    };
    constexpr std::uint32_t of_disk = 2;
    le32 parameters[] = {plan.disk.block_bytes, plan.fixed ? 1u : 0u};
    le64 size(plan.disk.size);
    le32 logical(512u), physical(4096u);
    Guid id = random_guid();
    add(item_file_parameters, parameters, 8, metadata_required);
    add(item_disk_size, &size, 8, metadata_required | of_disk);
    add(item_disk_id, id.data(), 16, metadata_required | of_disk);
    add(item_logical_sector, &logical, 4, metadata_required | of_disk);
    add(item_physical_sector, &physical, 4, metadata_required | of_disk);
    return region;
}

Task<Result<void>> write_bat(BlockDevice& file, Plan plan) {
    if (!plan.fixed) co_return Result<void>{}; // a hole: nothing is there
    std::vector<le64> bat(plan.disk.bat_entries());
    std::uint64_t blocks = div_ceil<std::uint64_t>(plan.disk.size, plan.disk.block_bytes);
    for (std::uint64_t block = 0; block < blocks; ++block)
        bat[block + block / plan.disk.chunk_ratio()] =
            (plan.data_offset() + block * plan.disk.block_bytes) | bat_present;
    ConstBytes bytes(reinterpret_cast<std::uint8_t const*>(bat.data()), bat.size() * sizeof(le64));
    CO_TRY(co_await write_bytes(file, plan.bat_offset(), bytes));
    ResizeRequest request;
    request.new_size_bytes = plan.data_offset() + blocks * plan.disk.block_bytes;
    Resizable* resizable = file.capabilities().resizable;
    if (!resizable || request.new_size_bytes <= file.size_bytes()) co_return Result<void>{};
    Result<void> result = co_await resizable->resize(request);
    co_return result;
}

Task<Result<void>> create_vhdx(BlockContext& context, CreateRequest request) {
    CO_TRY_ASSIGN(Plan plan, make_plan(request));
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, plan.data_offset(), request.file_options));
    CO_TRY(co_await write_zeroes(*file, 0, plan.data_offset(), {.may_unmap = true}));
    std::vector<std::uint8_t> identifier(64 << 10);
    std::memcpy(identifier.data(), file_signature.data(), file_signature.size());
    identifier[8] = 'v'; // the creator, in UTF-16
    identifier[10] = identifier[12] = 'm';
    CO_TRY(co_await write_bytes(*file, 0, identifier));
    std::vector<std::uint8_t> regions = region_table(plan), metadata = metadata_region(plan);
    for (std::uint64_t offset : region_offsets) {
        CO_TRY(co_await write_bytes(*file, offset, regions));
    }
    CO_TRY(co_await write_bytes(*file, plan.metadata_offset(), metadata));
    CO_TRY(co_await write_bat(*file, plan));
    Header header{};
    header.signature = {'h', 'e', 'a', 'd'};
    header.file_write_id = random_guid();
    header.data_write_id = random_guid();
    header.version = 1;
    header.log_length = plan.log_bytes;
    header.log_offset = MiB;
    for (std::size_t i = 0; i < std::size(header_offsets); ++i) {
        header.sequence = i + 1;
        CO_TRY(co_await write_header(*file, header, i));
    }
    co_return Result<void>{};
}

} // namespace

Format vhdx_format() {
    return {
        .name = "vhdx", .probe = probe, .open = vhdx::open, .create = create_vhdx, .create_options = create_options};
}

} // namespace vmm::block
