#include "block/formats/vpc/image.h"

#include "vmm/base/checked.h"
#include "vmm/base/log.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::vpc {

namespace {
constexpr std::uint64_t entries_per_sector = sector_bytes / sizeof(be32);
template <class T> Bytes bytes_of(T& object) { return {reinterpret_cast<std::uint8_t*>(&object), sizeof object}; }
} // namespace

VpcImage::VpcImage(FormatOpenArgs args, Footer footer, DynamicHeader header, std::vector<be32> table)
    : MappedImage(std::move(args), "vpc", disk_bytes(footer), footer.type == type_fixed ? 0 : header.block_size.load()),
      footer_(footer), header_(header), table_(std::move(table)) {
    if (fixed()) return;
    bitmap_bytes_ = align_up<std::uint64_t>(div_ceil<std::uint64_t>(unit_ / sector_bytes, 8), sector_bytes);
    std::uint64_t const table_bytes = table_.size() * sizeof(be32);
    add_metadata(file_.get(), 0, sizeof footer_, "copy of the footer");
    add_metadata(file_.get(), footer_.data_offset, sizeof header_, "dynamic header");
    add_metadata(file_.get(), header_.table_offset, table_bytes, "block table");
    end_ = align_up<std::uint64_t>(header_.table_offset + table_.size() * sizeof(be32), sector_bytes);
    for (be32 const& entry : table_)
        if (entry != block_unused) end_ = std::max(end_, std::uint64_t(entry) * sector_bytes + bitmap_bytes_ + unit_);
}

Result<std::optional<Mapping>> VpcImage::find(std::uint64_t offset) {
    Mapping at;
    at.device = file_.get();
    if (fixed()) {
        at.kind = Mapping::Kind::data;
        at.length = size_;
        at.ask_file = at.file_is_disk = true;
        return at;
    }
    std::uint64_t index = offset / unit_;
    at.start = index * unit_;
    at.length = std::min(unit_, size_ - at.start);
    std::uint32_t sector = table_[index];
    if (sector == block_unused) return at;
    at.kind = Mapping::Kind::data;
    at.host_offset = std::uint64_t(sector) * sector_bytes + bitmap_bytes_;
    if (at.host_offset + at.length > file_->size_bytes())
        return Error(fmt::format("'{}': block table entry {} points after the end of the file", file_name_, index),
                     EIO);
    return at;
}

Task<Result<NewPlace>> VpcImage::allocate(Mapping) {
    AsyncLock lock = co_await appending_.lock();
    std::uint64_t start = end_, next = start + bitmap_bytes_ + unit_;
    if (start / sector_bytes >= block_unused) co_return Error("The VHD image is full", ENOSPC);
    NewPlace place;
    place.device = file_.get();
    place.host_offset = start + bitmap_bytes_;
    place.reads_zero = place.host_offset >= file_->size_bytes();
    if (file_->size_bytes() < next + sizeof footer_) {
        CO_TRY(co_await extend_file(*file_, next + sizeof footer_));
        CO_TRY(co_await write_bytes(*file_, next, bytes_of(footer_)));
    }
    std::vector<std::uint8_t> bitmap(bitmap_bytes_, 0xff); // every sector counts
    CO_TRY(co_await write_bytes(*file_, start, bitmap));
    end_ = next;
    co_return place;
}

void VpcImage::publish(Mapping const& was, NewPlace place) {
    std::uint64_t index = was.start / unit_;
    table_[index] = std::uint32_t((place.host_offset - bitmap_bytes_) / sector_bytes);
    dirty_.insert(index / entries_per_sector);
}

Task<Result<void>> VpcImage::write_back() {
    // What is published now has its data in the file; what is published from here on waits for the next time.
    std::vector<be32> const snapshot = table_;
    std::set<std::uint64_t> sectors;
    sectors.swap(dirty_);
    Result<void> result = co_await file_->flush();
    auto entries = reinterpret_cast<std::uint8_t const*>(snapshot.data());
    for (auto at = sectors.begin(); result.ok() && at != sectors.end(); ++at) {
        std::uint64_t first = *at * sector_bytes;
        ConstBytes bytes(entries + first, std::min<std::uint64_t>(sector_bytes, snapshot.size() * 4 - first));
        result = co_await write_bytes(*file_, header_.table_offset + first, bytes);
    }
    if (result.ok()) result = co_await file_->flush();
    if (!result.ok()) dirty_.merge(sectors);
    co_return result;
}

namespace {

// The footer at the end of the file, or its copy at the start when that is damaged.
Task<Result<Footer>> read_footer(FormatOpenArgs& args) {
    Footer footer;
    std::uint64_t size = args.file->size_bytes();
    if (size < sizeof footer) co_return error("Could not open '{}': too small for a VHD footer", args.filename);
    CO_TRY(co_await read_bytes(*args.file, size - sizeof footer, bytes_of(footer)));
    if (has_cookie(footer) && footer.checksum == checksum_of(footer)) co_return footer;
    Footer copy;
    CO_TRY(co_await read_bytes(*args.file, 0, bytes_of(copy)));
    if (has_cookie(copy) && (copy.checksum == checksum_of(copy) || !has_cookie(footer))) footer = copy;
    if (has_cookie(footer) && footer.checksum != checksum_of(footer))
        args.context.log.message("", fmt::format("warning: The header checksum of '{}' is incorrect.", args.filename));
    co_return footer;
}

} // namespace

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    CO_TRY_ASSIGN(Footer footer, co_await read_footer(args));
    CO_TRY(validate(footer, args.filename));
    DynamicHeader header;
    std::vector<be32> table;
    if (footer.type == type_fixed) {
        CO_TRY(check_inside_file(*args.file, 0, disk_bytes(footer), "fixed VHD disk (current size)"));
        co_return std::make_unique<VpcImage>(std::move(args), footer, header, std::move(table));
    }
    CO_TRY(check_inside_file(*args.file, footer.data_offset, sizeof header, "VHD dynamic header (data offset)"));
    CO_TRY(co_await read_bytes(*args.file, footer.data_offset, bytes_of(header)));
    CO_TRY(validate(header, disk_bytes(footer), args.filename));
    CO_TRY(check_inside_file(*args.file, header.table_offset, std::uint64_t(header.entries) * 4,
                             "VHD block table (table offset, max table entries)"));
    table.resize(header.entries);
    Bytes entries(reinterpret_cast<std::uint8_t*>(table.data()), table.size() * sizeof(be32));
    CO_TRY(co_await read_bytes(*args.file, header.table_offset, entries));
    co_return std::make_unique<VpcImage>(std::move(args), footer, header, std::move(table));
}

} // namespace vmm::block::vpc
