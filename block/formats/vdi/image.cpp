#include "block/formats/vdi/image.h"

#include <algorithm>

namespace vmm::block::vdi {

namespace {
constexpr std::uint64_t entries_per_sector = sector_bytes / sizeof(le32);
}

VdiImage::VdiImage(FormatOpenArgs args, Header header, std::vector<le32> map)
    : MappedImage(std::move(args), "vdi", header.disk_size, block_bytes), header_(header), map_(std::move(map)) {
    // A kill may have left the counter behind the map: never hand out a place that is in use.
    std::uint64_t used = header_.blocks_allocated;
    for (le32 const& entry : map_)
        if (entry < block_zero) used = std::max<std::uint64_t>(used, std::uint64_t(entry) + 1);
    header_.blocks_allocated = std::uint32_t(std::min<std::uint64_t>(used, max_blocks));
}

Capabilities VdiImage::capabilities() {
    Capabilities can = MappedImage::capabilities();
    can.resizable = read_only() ? nullptr : this;
    can.checkable = this;
    return can;
}

Result<std::optional<Mapping>> VdiImage::find(std::uint64_t offset) {
    std::uint64_t index = offset / block_bytes;
    Mapping at;
    at.start = index * block_bytes;
    at.length = std::min<std::uint64_t>(block_bytes, size_ - at.start);
    at.device = file_.get();
    std::uint32_t place = map_[index];
    if (place >= block_zero) return at;
    if (place >= max_blocks)
        return Error(fmt::format("'{}': block map entry {} is {}: no such block", file_name_, index, place), EIO);
    at.kind = Mapping::Kind::data;
    at.host_offset = place_offset(place);
    if (at.host_offset + at.length > file_->size_bytes())
        return Error(
            fmt::format("'{}': block map entry {} is {}: beyond the end of the file", file_name_, index, place), EIO);
    at.ask_file = header_.image_type == type_static;
    return at;
}

Task<Result<NewPlace>> VdiImage::allocate(Mapping) {
    if (header_.blocks_allocated >= max_blocks) co_return Error("The VDI image is full", ENOSPC);
    NewPlace place;
    place.device = file_.get();
    place.host_offset = place_offset(header_.blocks_allocated);
    header_.blocks_allocated = header_.blocks_allocated + 1;
    // Rubbish left by a killed writer may lie there.
    place.reads_zero = place.host_offset >= file_->size_bytes();
    CO_TRY(co_await extend_file(*file_, place.host_offset + block_bytes));
    co_return place;
}

void VdiImage::publish(Mapping const& was, NewPlace place) {
    std::uint64_t index = was.start / block_bytes;
    map_[index] = std::uint32_t((place.host_offset - header_.offset_data) / block_bytes);
    touch(index, index);
}

void VdiImage::touch(std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t sector = first / entries_per_sector; sector <= last / entries_per_sector; ++sector)
        dirty_.insert(sector);
    header_dirty_ = true;
}

Task<Result<void>> VdiImage::write_header() {
    ConstBytes bytes(reinterpret_cast<std::uint8_t const*>(&header_), sizeof header_);
    Result<void> result = co_await write_bytes(*file_, 0, bytes);
    co_return result;
}

Task<Result<void>> VdiImage::write_back() {
    // What is published now has its data in the file; what is published from here on waits for the next time.
    std::vector<le32> const snapshot = map_;
    std::set<std::uint64_t> sectors;
    sectors.swap(dirty_);
    header_dirty_ = false;
    Result<void> result = co_await file_->flush();
    // The counter first: a map that uses places behind it would have another program give them out again.
    if (result.ok()) result = co_await write_header();
    auto entries = reinterpret_cast<std::uint8_t const*>(snapshot.data());
    for (auto at = sectors.begin(); result.ok() && at != sectors.end();) {
        std::uint64_t first = *at, end = first + 1;
        for (++at; at != sectors.end() && *at == end; ++at) ++end;
        std::uint64_t length = std::min(end * sector_bytes, snapshot.size() * 4) - first * sector_bytes;
        ConstBytes bytes(entries + first * sector_bytes, length);
        result = co_await write_bytes(*file_, header_.offset_bmap + first * sector_bytes, bytes);
    }
    if (result.ok()) result = co_await file_->flush();
    if (result.ok()) co_return result;
    dirty_.merge(sectors);
    header_dirty_ = true;
    co_return result;
}

Task<Result<CheckReport>> VdiImage::check(RepairMode repair, std::function<void(std::string_view)> message) {
    CheckReport report;
    if (repair != RepairMode::none) co_return Error("Repairing VDI images is not supported", ENOTSUP);
    std::vector<bool> seen(header_.blocks_allocated);
    std::uint64_t used = 0;
    for (std::size_t i = 0; i < map_.size(); ++i) {
        std::uint32_t place = map_[i];
        if (place >= block_zero) continue;
        ++used;
        if (place >= header_.blocks_in_image || place >= seen.size()) {
            message(fmt::format("ERROR: block index {} out of range, is {}", i, place));
            ++report.corruptions;
        } else if (seen[place]) {
            message(fmt::format("ERROR: block index {} also used by another block (place {})", i, place));
            ++report.corruptions;
        } else {
            seen[place] = true;
        }
    }
    if (used != header_.blocks_allocated) {
        message(fmt::format("ERROR: allocated blocks mismatch, is {}, should be {}", used,
                            std::uint32_t(header_.blocks_allocated)));
        ++report.leaks;
    }
    co_return report;
}

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    Header header;
    CO_TRY(check_inside_file(*args.file, 0, sizeof header, "VDI header"));
    Bytes bytes(reinterpret_cast<std::uint8_t*>(&header), sizeof header);
    CO_TRY(co_await read_bytes(*args.file, 0, bytes));
    CO_TRY(validate(header, args.filename));
    CO_TRY(check_inside_file(*args.file, header.offset_bmap, std::uint64_t(header.blocks_in_image) * 4,
                             "VDI block map (offset_bmap, blocks_in_image)"));
    std::vector<le32> map(header.blocks_in_image);
    Bytes entries(reinterpret_cast<std::uint8_t*>(map.data()), map.size() * sizeof(le32));
    CO_TRY(co_await read_bytes(*args.file, header.offset_bmap, entries));
    co_return std::make_unique<VdiImage>(std::move(args), header, std::move(map));
}

} // namespace vmm::block::vdi
