#include "block/formats/vmdk/image.h"
#include "block/formats/vmdk/vmdk.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

namespace vmm::block {

namespace {

using namespace vmdk;

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size"},
    {"adapter_type", OptionType::string,
     "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"},
    {"backing_file", OptionType::string, "File name of a base image"},
    {"backing_fmt", OptionType::string, "Must be 'vmdk' if present"},
    {"compat6", OptionType::boolean, "VMDK version 6 image", "off"},
    {"hwversion", OptionType::string, "VMDK hardware version", "undefined"},
    {"subformat", OptionType::string,
     "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | twoGbMaxExtentSparse | "
     "twoGbMaxExtentFlat | streamOptimized} "},
    {"toolsversion", OptionType::string, "VMware guest tools version"},
    {"zeroed_grain", OptionType::boolean, "Enable efficient zero writes using the zeroed-grain GTE feature"},
};
constexpr std::uint64_t two_gib = std::uint64_t(2) << 30;
constexpr std::uint64_t descriptor_sector = 1, descriptor_sectors = 20;
constexpr std::uint64_t grain_sectors = 128, table_entries = 512, table_sectors = 4;

struct Plan {
    std::string subformat = "monolithicSparse", adapter = "ide", hwversion = "4", toolsversion = "2147483647";
    std::string backing;
    std::uint32_t parent_cid = no_parent;
    bool zeroed_grain = false;
    bool flat() const { return subformat.ends_with("Flat"); }
    bool split() const { return subformat.starts_with("twoGb"); }
    bool stream() const { return subformat == "streamOptimized"; }
};

int probe(ConstBytes header, std::string_view) {
    std::string_view text(reinterpret_cast<char const*>(header.data()), header.size());
    if (text.starts_with(sparse_magic) || text.starts_with(cowd_magic)) return 100;
    return looks_like_descriptor(text) ? 100 : 0;
}

template <std::size_t n>
Result<void> expect_one_of(std::string const& value, std::array<std::string_view, n> const& allowed) {
    if (std::ranges::find(allowed, value) == allowed.end()) return error("invalid parameter value: {}", value);
    return {};
}

Result<Plan> make_plan(CreateRequest const& request) {
    OptionValues const& o = request.options;
    Plan plan;
    plan.subformat = o.text_or("subformat", plan.subformat);
    plan.adapter = o.text_or("adapter_type", plan.adapter);
    plan.toolsversion = o.text_or("toolsversion", plan.toolsversion);
    plan.backing = o.text_or("backing_file", "");
    plan.zeroed_grain = TRY(o.boolean("zeroed_grain", false));
    constexpr std::array<std::string_view, 5> subformats = {
        "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"};
    constexpr std::array<std::string_view, 4> adapters = {"ide", "lsilogic", "buslogic", "legacyESX"};
    TRY(expect_one_of(plan.subformat, subformats));
    TRY(expect_one_of(plan.adapter, adapters));
    std::string hwversion = o.text_or("hwversion", "undefined");
    bool compat6 = TRY(o.boolean("compat6", false));
    if (compat6 && hwversion != "undefined") return error("compat6 cannot be enabled with hwversion set");
    plan.hwversion = hwversion != "undefined" ? hwversion : compat6 ? "6" : "4";
    if (plan.flat() && !plan.backing.empty()) return error("Flat image can't have backing file");
    if (plan.flat() && plan.zeroed_grain) return error("Flat image can't enable zeroed grain");
    if (!plan.backing.empty() && o.text_or("backing_fmt", "vmdk") != "vmdk")
        return error("backing_file must be a vmdk image");
    return plan;
}

Task<Result<std::uint32_t>> parent_cid(BlockContext& context, std::string const& child, std::string const& backing) {
    OpenOptions options;
    options.filename = resolve_backing_filename(child, backing);
    options.read_only = true;
    options.backing = BackingChoice::none;
    options.quiet_probe = true;
    CO_TRY_ASSIGN(std::unique_ptr<Image> parent, co_await open_image(context, options));
    if (parent->format_name() != "vmdk")
        co_return error("Invalid backing file format: {}. Must be vmdk", parent->format_name());
    CO_TRY_ASSIGN(FormatInfo info, co_await parent->capabilities().info->format_info());
    CO_TRY(co_await close_image(std::move(parent)));
    co_return std::uint32_t(std::stoul(info.specific_data.find("cid")->scalar_text()));
}

std::string descriptor_text(Plan const& plan, std::string const& extents, std::uint64_t sectors) {
    std::random_device random;
    std::uint64_t heads = plan.adapter == "ide" ? 16 : 255;
    std::string parent = plan.backing.empty() ? "" : fmt::format("parentFileNameHint=\"{}\"\n", plan.backing);
    return fmt::format("# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID={:08x}\ncreateType=\"{}\"\n{}\n"
                       "# Extent description\n{}\n"
                       "# The Disk Data Base\n#DDB\n\n"
                       "ddb.virtualHWVersion = \"{}\"\nddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"{}\"\n"
                       "ddb.geometry.sectors = \"63\"\nddb.adapterType = \"{}\"\nddb.toolsVersion = \"{}\"\n",
                       random() & 0xfffffffe, plan.parent_cid, plan.subformat, parent, extents, plan.hwversion,
                       sectors / (63 * heads), heads, plan.adapter, plan.toolsversion);
}

// Directory and tables behind the descriptor's room; all grain tables are there from the start.
std::vector<std::uint8_t> sparse_start(Plan const& plan, std::uint64_t sectors) {
    std::uint64_t tables = div_ceil(sectors, grain_sectors * table_entries);
    std::uint64_t directory_sectors = div_ceil<std::uint64_t>(tables * 4, sector_bytes);
    SparseHeader h;
    h.version = plan.stream() ? 3 : plan.zeroed_grain ? 2 : 1;
    h.flags = flag_newline_test | flag_redundant_tables | (plan.zeroed_grain ? flag_zeroed_grain : 0) |
              (plan.stream() ? flag_compressed | flag_markers : 0);
    h.capacity = sectors;
    h.grain_size = grain_sectors;
    h.descriptor_offset = descriptor_sector;
    h.descriptor_size = descriptor_sectors;
    h.redundant_directory = descriptor_sector + descriptor_sectors;
    h.directory = h.redundant_directory + directory_sectors + tables * table_sectors;
    h.overhead = align_up(h.directory + directory_sectors + tables * table_sectors, grain_sectors);
    h.compression = plan.stream() ? 1 : 0;
    std::vector<std::uint8_t> start(h.overhead * sector_bytes);
    std::memcpy(start.data(), &h, sizeof h);
    for (std::uint64_t directory : {h.redundant_directory.load(), h.directory.load()})
        for (std::uint64_t i = 0; i < tables; ++i) {
            le32 at(std::uint32_t(directory + directory_sectors + i * table_sectors));
            std::memcpy(start.data() + directory * sector_bytes + i * 4, &at, 4);
        }
    return start;
}

Task<Result<void>> write_text(BlockDevice& file, std::uint64_t offset, std::string const& text) {
    ConstBytes bytes(reinterpret_cast<std::uint8_t const*>(text.data()), text.size());
    CO_TRY(co_await write_bytes(file, offset, bytes));
    Result<void> result = co_await file.flush();
    co_return result;
}

Task<Result<void>> create_monolithic(BlockContext& context, CreateRequest const& request, Plan plan,
                                     std::uint64_t sectors) {
    std::string const& filename = request.filename;
    std::string base = filename.substr(filename.rfind('/') + 1);
    std::string text = descriptor_text(plan, fmt::format("RW {} SPARSE \"{}\"\n", sectors, base), sectors);
    if (text.size() > descriptor_sectors * sector_bytes) co_return error("The descriptor is too long");
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file, co_await create_file(context, filename, 0, request.file_options));
    std::vector<std::uint8_t> start = sparse_start(plan, sectors);
    std::memcpy(start.data() + descriptor_sector * sector_bytes, text.data(), text.size());
    CO_TRY(co_await write_bytes(*file, 0, start));
    Result<void> result = co_await file->flush();
    co_return result;
}

Task<Result<void>> create_extent_file(BlockContext& context, std::string filename, Plan const& plan,
                                      std::uint64_t sectors, OptionValues options) {
    CO_TRY_ASSIGN(
        std::unique_ptr<BlockDevice> file,
        co_await create_file(context, filename, plan.flat() ? sectors * sector_bytes : 0, std::move(options)));
    if (plan.flat()) co_return Result<void>{};
    std::vector<std::uint8_t> start = sparse_start(plan, sectors);
    CO_TRY(co_await write_bytes(*file, 0, start));
    Result<void> result = co_await file->flush();
    co_return result;
}

Task<Result<void>> create(BlockContext& context, CreateRequest request) {
    CO_TRY_ASSIGN(Plan plan, make_plan(request));
    std::uint64_t sectors = div_ceil<std::uint64_t>(request.size_bytes, sector_bytes);
    if (div_ceil(sectors, grain_sectors * table_entries) > max_directory_entries)
        co_return error("VMDK images cannot be larger than {} bytes",
                        max_directory_entries * table_entries * grain_sectors * sector_bytes);
    if (!plan.backing.empty()) {
        CO_TRY_ASSIGN(plan.parent_cid, co_await parent_cid(context, request.filename, plan.backing));
    }
    if (!plan.flat() && !plan.split()) {
        Result<void> one = co_await create_monolithic(context, request, plan, sectors);
        co_return one;
    }
    std::size_t slash = request.filename.rfind('/') + 1, dot = request.filename.rfind('.');
    std::string stem = dot == std::string::npos || dot < slash ? request.filename : request.filename.substr(0, dot);
    std::string suffix = request.filename.substr(stem.size());
    std::uint64_t step = plan.split() ? two_gib / sector_bytes : std::max<std::uint64_t>(sectors, 1);
    if (div_ceil(sectors, step) > max_extents)
        co_return error("An image of this size needs more than {} extents", max_extents);
    std::string lines;
    for (std::uint64_t at = 0, number = 1; at < sectors || number == 1; at += step, ++number) {
        std::uint64_t n = std::min(step, sectors - at);
        std::string name = plan.split() ? fmt::format("{}-{}{:03}{}", stem, plan.flat() ? 'f' : 's', number, suffix)
                                        : fmt::format("{}-flat{}", stem, suffix);
        CO_TRY(co_await create_extent_file(context, name, plan, n, request.file_options));
        lines += fmt::format("RW {} {} \"{}\"{}\n", n, plan.flat() ? "FLAT" : "SPARSE", name.substr(slash),
                             plan.flat() ? " 0" : "");
    }
    std::string text = descriptor_text(plan, lines, sectors);
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, 0, request.file_options));
    Result<void> result = co_await write_text(*file, 0, text);
    co_return result;
}

} // namespace

Format vmdk_format() {
    return {.name = "vmdk",
            .probe = probe,
            .open = vmdk::open,
            .create = create,
            .create_options = create_options,
            .supports_backing = true,
            .supports_compression = true};
}

} // namespace vmm::block
