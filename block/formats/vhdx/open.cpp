#include "block/formats/vhdx/image.h"
#include "block/formats/vhdx/log.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cstring>

namespace vmm::block::vhdx {

namespace {

// The valid header with the higher sequence number.
Task<Result<void>> read_header(BlockDevice& file, std::string filename, VhdxImage::Parts& parts) {
    bool found = false;
    for (std::size_t i = 0; i < std::size(header_offsets); ++i) {
        std::vector<std::uint8_t> bytes(header_bytes);
        CO_TRY(co_await read_bytes(file, header_offsets[i], bytes));
        Header header;
        std::memcpy(&header, bytes.data(), sizeof header);
        bool valid = std::string_view(header.signature.data(), 4) == "head" && header.checksum == checksum_of(bytes);
        if (!valid || (found && header.sequence <= parts.header.sequence)) continue;
        parts.header = header;
        parts.header_index = i;
        found = true;
    }
    if (!found) co_return error("Could not open '{}': neither VHDX header is valid", filename);
    if (parts.header.version != 1)
        co_return error("Could not open '{}': VHDX header field Version is {}", filename, parts.header.version.load());
    co_return Result<void>{};
}

// Writes what the log holds to its place and marks the log as empty.
Task<Result<void>> write_out(BlockDevice& file, std::vector<Patch> patches, VhdxImage::Parts& parts) {
    ZeroFlags flags;
    for (Patch const& patch : patches) {
        if (patch.bytes.empty()) {
            CO_TRY(co_await write_zeroes(file, patch.offset, patch.length, flags));
        } else {
            CO_TRY(co_await write_bytes(file, patch.offset, patch.bytes));
        }
    }
    CO_TRY(co_await file.flush());
    parts.header.log_id = {};
    parts.header.sequence = parts.header.sequence + 1;
    parts.header_index ^= 1;
    Result<void> result = co_await write_header(file, parts.header, parts.header_index);
    co_return result;
}

Task<Result<void>> apply_log(FormatOpenArgs& args, VhdxImage::Parts& parts) {
    Header const& header = parts.header;
    if (header.log_id == Guid{}) co_return Result<void>{};
    if (header.log_version != 0)
        co_return error("Could not open '{}': VHDX header field LogVersion is {}", args.filename,
                        header.log_version.load());
    if (header.log_length == 0 || header.log_length % MiB || header.log_length > max_log_bytes ||
        header.log_offset < MiB || header.log_offset % MiB)
        co_return error("Could not open '{}': VHDX header field LogLength or LogOffset is out of range", args.filename);
    CO_TRY(check_inside_file(*args.file, header.log_offset, header.log_length, "VHDX log"));
    std::vector<std::uint8_t> log(header.log_length);
    CO_TRY(co_await read_bytes(*args.file, header.log_offset, log));
    CO_TRY_ASSIGN(std::vector<Patch> patches, replay_log(log, header.log_id, args.filename));
    if (!args.file->read_only()) {
        Result<void> written = co_await write_out(*args.file, std::move(patches), parts);
        co_return written;
    }
    if (!patches.empty()) args.file = patched_file(std::move(args.file), std::move(patches));
    co_return Result<void>{};
}

Task<Result<Regions>> read_regions(BlockDevice& file, std::string filename) {
    Result<Regions> regions = error("no region table");
    for (std::uint64_t offset : region_offsets) {
        std::vector<std::uint8_t> table(region_table_bytes);
        CO_TRY(co_await read_bytes(file, offset, table));
        regions = parse_regions(table, filename);
        if (regions.ok()) break;
    }
    co_return regions;
}

} // namespace

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    std::array<char, 8> signature{};
    Bytes start(reinterpret_cast<std::uint8_t*>(signature.data()), signature.size());
    CO_TRY(co_await read_bytes(*args.file, 0, start));
    if (std::string_view(signature.data(), 8) != file_signature)
        co_return error("Could not open '{}': Image not in VHDX format", args.filename);
    VhdxImage::Parts parts;
    CO_TRY(co_await read_header(*args.file, args.filename, parts));
    CO_TRY(co_await apply_log(args, parts));
    CO_TRY_ASSIGN(parts.regions, co_await read_regions(*args.file, args.filename));
    Regions const& regions = parts.regions;
    CO_TRY(check_inside_file(*args.file, regions.metadata_offset, regions.metadata_length, "VHDX metadata region"));
    std::vector<std::uint8_t> metadata(std::min<std::uint64_t>(regions.metadata_length, 2 * MiB));
    CO_TRY(co_await read_bytes(*args.file, regions.metadata_offset, metadata));
    CO_TRY_ASSIGN(parts.disk, parse_metadata(metadata, args.filename));
    std::uint64_t bat_bytes = parts.disk.bat_entries() * sizeof(le64);
    if (bat_bytes > regions.bat_length)
        co_return error("Could not open '{}': the BAT region has {} bytes, the disk needs {}", args.filename,
                        regions.bat_length, bat_bytes);
    CO_TRY(check_inside_file(*args.file, regions.bat_offset, bat_bytes, "VHDX BAT region"));
    parts.bat.resize(parts.disk.bat_entries());
    Bytes entries(reinterpret_cast<std::uint8_t*>(parts.bat.data()), bat_bytes);
    CO_TRY(co_await read_bytes(*args.file, regions.bat_offset, entries));
    co_return std::make_unique<VhdxImage>(std::move(args), std::move(parts));
}

} // namespace vmm::block::vhdx
