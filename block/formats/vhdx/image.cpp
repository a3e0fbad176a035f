// An open VHDX image.
#include "block/formats/mapped/mapped_image.h"
#include "block/formats/vhdx/header.h"
#include "block/formats/vhdx/log.h"
#include "block/formats/vhdx/vhdx.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

namespace vmm::block {

namespace {

using namespace vhdx;

// Block states, the low three bits of a BAT entry (2.5.1.1). Partially present (7) is for differencing disks.
enum : std::uint64_t { state_absent = 0, state_undefined = 1, state_zero = 2, state_unmapped = 3, state_present = 6 };
constexpr std::uint64_t state_mask = 7, offset_mask = ~std::uint64_t(0xfffff);

class VhdxImage final : public MappedImage, public Checkable {
public:
    VhdxImage(FormatOpenArgs args, Disk disk, std::vector<le64> bat)
        : MappedImage(std::move(args), "vhdx", disk.size, disk.block_bytes), disk_(disk), bat_(std::move(bat)) {}
    bool read_only() const override { return true; }
    Capabilities capabilities() override {
        Capabilities can = MappedImage::capabilities();
        can.checkable = this;
        return can;
    }
    Task<Result<CheckReport>> check(RepairMode repair, std::function<void(std::string_view)> message) override;

protected:
    Result<std::optional<Mapping>> find(std::uint64_t offset) override {
        std::uint64_t block = offset / unit_, entry = bat_[index_of(block)];
        Mapping at;
        at.start = block * unit_;
        at.length = std::min(unit_, size_ - at.start);
        at.device = file_.get();
        at.kind = Mapping::Kind::zero;
        if ((entry & state_mask) <= state_unmapped) return at;
        if ((entry & state_mask) != state_present)
            return Error(
                fmt::format("'{}': BAT entry of block {} has the state {}", file_name_, block, entry & state_mask),
                EIO);
        at.kind = Mapping::Kind::data;
        at.host_offset = entry & offset_mask;
        if (at.host_offset < MiB || at.host_offset >= file_->size_bytes())
            return Error(fmt::format("'{}': BAT entry of block {} points outside the file", file_name_, block), EIO);
        return at;
    }

private:
    // After each chunk of payload blocks comes the entry of its sector bitmap.
    std::uint64_t index_of(std::uint64_t block) const { return block + block / disk_.chunk_ratio(); }
    Disk disk_;
    std::vector<le64> bat_;
};

Task<Result<CheckReport>> VhdxImage::check(RepairMode repair, std::function<void(std::string_view)> message) {
    if (repair != RepairMode::none) co_return Error("Repairing VHDX images is not supported", ENOTSUP);
    CheckReport report;
    std::set<std::uint64_t> seen;
    report.total_clusters = div_ceil(size_, unit_);
    for (std::uint64_t block = 0; block < report.total_clusters; ++block) {
        std::uint64_t entry = bat_[index_of(block)], offset = entry & offset_mask;
        if ((entry & state_mask) <= state_unmapped) continue;
        ++report.allocated_clusters;
        std::string problem;
        if ((entry & state_mask) != state_present)
            problem = "has an unknown state";
        else if (offset < MiB || offset + unit_ > align_up<std::uint64_t>(file_->size_bytes(), MiB))
            problem = "points outside the file";
        else if (!seen.insert(offset).second)
            problem = "is also used by another block";
        if (problem.empty()) continue;
        message(fmt::format("ERROR: BAT entry of block {} {}", block, problem));
        ++report.corruptions;
    }
    co_return report;
}

int probe(ConstBytes header, std::string_view) {
    std::string_view text(reinterpret_cast<char const*>(header.data()), header.size());
    return text.starts_with(file_signature) ? 100 : 0;
}

// The valid header with the higher sequence number.
Task<Result<Header>> read_header(BlockDevice& file, std::string filename) {
    std::optional<Header> best;
    for (std::uint64_t offset : header_offsets) {
        std::vector<std::uint8_t> bytes(header_bytes);
        CO_TRY(co_await read_bytes(file, offset, bytes));
        Header header;
        std::memcpy(&header, bytes.data(), sizeof header);
        bool valid = std::string_view(header.signature.data(), 4) == "head" && header.checksum == checksum_of(bytes);
        if (valid && (!best || header.sequence > best->sequence)) best = header;
    }
    if (!best) co_return error("Could not open '{}': neither VHDX header is valid", filename);
    if (best->version != 1)
        co_return error("Could not open '{}': VHDX header field Version is {}", filename, best->version.load());
    co_return *best;
}

Task<Result<void>> apply_log(FormatOpenArgs& args, Header header) {
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

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    CO_TRY(require_read_only(args, "vhdx"));
    std::array<char, 8> signature{};
    Bytes start(reinterpret_cast<std::uint8_t*>(signature.data()), signature.size());
    CO_TRY(co_await read_bytes(*args.file, 0, start));
    if (std::string_view(signature.data(), 8) != file_signature)
        co_return error("Could not open '{}': Image not in VHDX format", args.filename);
    CO_TRY_ASSIGN(Header header, co_await read_header(*args.file, args.filename));
    CO_TRY(co_await apply_log(args, header));
    CO_TRY_ASSIGN(Regions regions, co_await read_regions(*args.file, args.filename));
    CO_TRY(check_inside_file(*args.file, regions.metadata_offset, regions.metadata_length, "VHDX metadata region"));
    std::vector<std::uint8_t> metadata(std::min<std::uint64_t>(regions.metadata_length, 2 * MiB));
    CO_TRY(co_await read_bytes(*args.file, regions.metadata_offset, metadata));
    CO_TRY_ASSIGN(Disk disk, parse_metadata(metadata, args.filename));
    std::uint64_t bat_bytes = disk.bat_entries() * sizeof(le64);
    if (bat_bytes > regions.bat_length)
        co_return error("Could not open '{}': the BAT region has {} bytes, the disk needs {}", args.filename,
                        regions.bat_length, bat_bytes);
    CO_TRY(check_inside_file(*args.file, regions.bat_offset, bat_bytes, "VHDX BAT region"));
    std::vector<le64> bat(disk.bat_entries());
    Bytes entries(reinterpret_cast<std::uint8_t*>(bat.data()), bat_bytes);
    CO_TRY(co_await read_bytes(*args.file, regions.bat_offset, entries));
    co_return std::make_unique<VhdxImage>(std::move(args), disk, std::move(bat));
}

} // namespace

Format vhdx_format() { return {.name = "vhdx", .probe = probe, .open = open}; }

} // namespace vmm::block
