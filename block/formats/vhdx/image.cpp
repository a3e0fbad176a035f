#include "block/formats/vhdx/image.h"

#include "vmm/base/checked.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::block::vhdx {

namespace {
constexpr std::uint64_t bat_sector_bytes = 512, entries_per_sector = bat_sector_bytes / sizeof(le64);
} // namespace

VhdxImage::VhdxImage(FormatOpenArgs args, Parts parts)
    : MappedImage(std::move(args), "vhdx", parts.disk.size, parts.disk.block_bytes), parts_(std::move(parts)) {
    Regions const& r = parts_.regions;
    add_metadata(file_.get(), 0, MiB, "header");
    add_metadata(file_.get(), r.bat_offset, r.bat_length, "BAT region");
    add_metadata(file_.get(), r.metadata_offset, r.metadata_length, "metadata region");
    add_metadata(file_.get(), parts_.header.log_offset, parts_.header.log_length, "log");
    end_ = std::max({file_->size_bytes(), r.bat_offset + r.bat_length, r.metadata_offset + r.metadata_length,
                     std::uint64_t(parts_.header.log_offset) + parts_.header.log_length});
    end_ = align_up<std::uint64_t>(end_, MiB);
}

Capabilities VhdxImage::capabilities() {
    Capabilities can = MappedImage::capabilities();
    can.checkable = this;
    return can;
}

Result<std::optional<Mapping>> VhdxImage::find(std::uint64_t offset) {
    std::uint64_t block = offset / unit_, entry = parts_.bat[index_of(block)];
    Mapping at;
    at.start = block * unit_;
    at.length = std::min(unit_, size_ - at.start);
    at.device = file_.get();
    at.kind = Mapping::Kind::zero;
    if ((entry & bat_state_mask) <= bat_unmapped) return at;
    if ((entry & bat_state_mask) != bat_present)
        return Error(
            fmt::format("'{}': BAT entry of block {} has the state {}", file_name_, block, entry & bat_state_mask),
            EIO);
    at.kind = Mapping::Kind::data;
    at.host_offset = entry & bat_offset_mask;
    if (at.host_offset < MiB || at.host_offset > file_->size_bytes() ||
        at.length > file_->size_bytes() - at.host_offset)
        return Error(fmt::format("'{}': BAT entry of block {} points outside the file", file_name_, block), EIO);
    return at;
}

Task<Result<NewPlace>> VhdxImage::allocate(Mapping) {
    NewPlace place;
    place.device = file_.get();
    place.host_offset = end_;
    place.reads_zero = end_ >= file_->size_bytes();
    end_ += unit_;
    CO_TRY(co_await extend_file(*file_, place.host_offset + unit_));
    co_return place;
}

void VhdxImage::publish(Mapping const& was, NewPlace place) {
    std::uint64_t index = index_of(was.start / unit_);
    parts_.bat[index] = place.host_offset | bat_present;
    dirty_.insert(index / entries_per_sector);
}

// Each entry stands for itself and its data is stable before it is written, so that the log is not needed: a kill
// between two entries leaves a disk in which both are right.
Task<Result<void>> VhdxImage::write_back() {
    std::vector<le64> const snapshot = parts_.bat; // entries published from here on wait for the next time
    std::set<std::uint64_t> sectors;
    sectors.swap(dirty_);
    Result<void> result = co_await file_->flush();
    auto entries = reinterpret_cast<std::uint8_t const*>(snapshot.data());
    for (auto at = sectors.begin(); result.ok() && at != sectors.end(); ++at) {
        std::uint64_t first = *at * bat_sector_bytes;
        ConstBytes bytes(entries + first, std::min<std::uint64_t>(bat_sector_bytes, snapshot.size() * 8 - first));
        result = co_await write_bytes(*file_, parts_.regions.bat_offset + first, bytes);
    }
    if (result.ok()) result = co_await file_->flush();
    if (!result.ok()) dirty_.merge(sectors);
    co_return result;
}

Guid random_guid() {
    Guid id{};
    [[maybe_unused]] ssize_t got = getrandom(id.data(), id.size(), 0); // 16 bytes never come short
    return id;
}

Task<Result<void>> write_header(BlockDevice& file, Header header, std::size_t index) {
    std::vector<std::uint8_t> bytes(header_bytes);
    std::memcpy(bytes.data(), &header, sizeof header);
    store_le<std::uint32_t>(bytes.data() + 4, checksum_of(bytes));
    CO_TRY(co_await write_bytes(file, header_offsets[index], bytes));
    Result<void> result = co_await file.flush();
    co_return result;
}

Task<Result<void>> VhdxImage::before_first_write() {
    if (changed_) co_return Result<void>{};
    AsyncLock lock = co_await first_write_.lock();
    if (changed_) co_return Result<void>{};
    Header next = parts_.header;
    next.sequence = next.sequence + 1;
    next.file_write_id = random_guid();
    next.data_write_id = random_guid();
    parts_.header_index ^= 1;
    CO_TRY(co_await write_header(*file_, next, parts_.header_index));
    parts_.header = next;
    changed_ = true;
    co_return Result<void>{};
}

Task<Result<void>> VhdxImage::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    CO_TRY(check_range(offset, from.size_bytes(), size_));
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    CO_TRY(co_await before_first_write());
    Result<void> result = co_await MappedImage::write(offset, from, durability);
    co_return result;
}

Task<Result<void>> VhdxImage::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check_range(offset, length, size_));
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    CO_TRY(co_await before_first_write());
    Result<void> result = co_await MappedImage::write_zeroes(offset, length, flags);
    co_return result;
}

// All that can be repaired is a log that was not replayed, and opening for writing has done that.
Task<Result<CheckReport>> VhdxImage::check(RepairMode, std::function<void(std::string_view)> message) {
    CheckReport report;
    std::set<std::uint64_t> seen;
    std::uint64_t const blocks = div_ceil(size_, unit_);
    for (std::uint64_t block = 0; block < blocks; ++block) {
        std::uint64_t entry = parts_.bat[index_of(block)], offset = entry & bat_offset_mask;
        if ((entry & bat_state_mask) <= bat_unmapped) continue;
        std::string problem;
        if ((entry & bat_state_mask) != bat_present)
            problem = "has an unknown state";
        else if (offset < MiB || offset >= file_->size_bytes())
            problem = "points outside the file";
        else if (!seen.insert(offset).second)
            problem = "is also used by another block";
        if (problem.empty()) continue;
        message(fmt::format("ERROR: BAT entry of block {} {}", block, problem));
        ++report.corruptions;
    }
    co_return report;
}

} // namespace vmm::block::vhdx
