#include "block/formats/vmdk/image.h"
#include "vmm/base/checked.h"

#include <algorithm>

namespace vmm::block::vmdk {

namespace {

OpenOptions sibling_options(FormatOpenArgs const& args, std::string filename, bool writable) {
    OpenOptions options = args.options;
    options.filename = std::move(filename);
    options.format.clear();
    options.tree = {};
    options.read_only |= !writable;
    return options;
}

Task<Result<std::unique_ptr<Extent>>> open_extent(BlockContext& context, OpenOptions options, ExtentLine line,
                                                  std::uint64_t start) {
    auto extent = std::make_unique<Extent>();
    extent->type = line.type;
    extent->start = start;
    extent->length = line.sectors * sector_bytes;
    extent->filename = options.filename;
    if (line.type == "ZERO") {
        extent->kind = ExtentKind::zero;
        co_return std::move(extent);
    }
    Result<std::unique_ptr<BlockDevice>> file = co_await open_protocol(context, std::move(options));
    if (!file.ok()) co_return file.error().with_prefix("Could not open extent");
    extent->owned = std::move(file).value();
    extent->device = extent->owned.get();
    if (line.type == "SPARSE" || line.type == "VMFSSPARSE") {
        std::uint64_t capacity = 0;
        SparseHeader header;
        CO_TRY(co_await extent->load_sparse(capacity, header));
        if (capacity < line.sectors)
            co_return error("Could not open '{}': the extent has {} sectors, its descriptor says {}", extent->filename,
                            capacity, line.sectors);
        co_return std::move(extent);
    }
    extent->flat_offset = line.offset_sectors * sector_bytes;
    Result<void> inside = check_inside_file(*extent->device, extent->flat_offset, extent->length, "flat extent");
    if (!inside.ok()) co_return inside.error().with_prefix(fmt::format("Could not open '{}'", extent->filename));
    co_return std::move(extent);
}

Task<Result<void>> open_extents(FormatOpenArgs& args, VmdkImage::Parts& parts) {
    for (ExtentLine const& line : parts.descriptor.extents) {
        std::string name = resolve_backing_filename(args.filename, line.filename);
        OpenOptions options = sibling_options(args, std::move(name), line.writable);
        CO_TRY_ASSIGN(std::unique_ptr<Extent> extent,
                      co_await open_extent(args.context, std::move(options), line, parts.size));
        parts.size += extent->length;
        if (parts.size > max_disk_sectors * sector_bytes)
            co_return error("Could not open '{}': the extents are too large together", args.filename);
        if (extent->length > 0) parts.extents.push_back(std::move(extent));
    }
    co_return Result<void>{};
}

Task<Result<std::string>> read_text(BlockDevice& file, std::uint64_t offset, std::uint64_t length) {
    std::string text(length, '\0');
    Bytes bytes(reinterpret_cast<std::uint8_t*>(text.data()), text.size());
    CO_TRY(co_await read_bytes(file, offset, bytes));
    co_return std::move(text);
}

Task<Result<void>> open_monolithic(FormatOpenArgs& args, VmdkImage::Parts& parts) {
    auto extent = std::make_unique<Extent>();
    extent->filename = args.filename;
    extent->device = args.file.get();
    std::uint64_t capacity = 0;
    SparseHeader header;
    CO_TRY(co_await extent->load_sparse(capacity, header));
    extent->length = parts.size = capacity * sector_bytes;
    bool hosted = std::string_view(header.magic.data(), 4) == sparse_magic;
    if (hosted && header.descriptor_offset != 0 && header.descriptor_size != 0) {
        std::uint64_t sectors = args.file->size_bytes() / sector_bytes;
        if (header.descriptor_offset > sectors || header.descriptor_size > max_descriptor_bytes / sector_bytes)
            co_return error("Could not open '{}': VMDK header field descriptorOffset or descriptorSize is out of range",
                            args.filename);
        parts.descriptor_offset = header.descriptor_offset * sector_bytes;
        CO_TRY_ASSIGN(std::string text,
                      co_await read_text(*args.file, parts.descriptor_offset, header.descriptor_size * sector_bytes));
        CO_TRY_ASSIGN(parts.descriptor, parse_descriptor(text, args.filename));
        if (parts.descriptor.create_type.empty())
            co_return error("Could not open '{}': the embedded VMDK descriptor has no createType", args.filename);
    } else {
        parts.descriptor.create_type = hosted ? "monolithicSparse" : "vmfsSparse";
    }
    if (extent->length > 0) parts.extents.push_back(std::move(extent));
    co_return Result<void>{};
}

} // namespace

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    VmdkImage::Parts parts;
    CO_TRY_ASSIGN(std::string magic, co_await read_text(*args.file, 0, 4));
    if (magic == sparse_magic || magic == cowd_magic) {
        CO_TRY(co_await open_monolithic(args, parts));
    } else {
        CO_TRY_ASSIGN(std::string text,
                      co_await read_text(*args.file, 0, std::min(args.file->size_bytes(), max_descriptor_bytes)));
        if (!looks_like_descriptor(text))
            co_return error("Could not open '{}': Image not in VMDK format", args.filename);
        CO_TRY_ASSIGN(parts.descriptor, parse_descriptor(text, args.filename));
        if (parts.descriptor.create_type == "seSparse")
            co_return error("Could not open '{}': VMDK type 'seSparse' is not supported", args.filename);
        if (parts.descriptor.extents.empty())
            co_return error("Could not open '{}': the VMDK descriptor names no extent", args.filename);
        CO_TRY(co_await open_extents(args, parts));
    }
    bool same = !parts.extents.empty();
    for (auto const& extent : parts.extents)
        same &= extent->kind == ExtentKind::sparse && extent->grain_bytes == parts.extents[0]->grain_bytes;
    parts.grain_bytes = same ? parts.extents[0]->grain_bytes : 0;
    co_return std::make_unique<VmdkImage>(std::move(args), std::move(parts));
}

} // namespace vmm::block::vmdk
