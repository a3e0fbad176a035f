#include "block/formats/vmdk/image.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <random>

namespace vmm::block::vmdk {

VmdkImage::VmdkImage(FormatOpenArgs args, Parts parts)
    : MappedImage(std::move(args), "vmdk", parts.size, parts.grain_bytes), parts_(std::move(parts)),
      read_only_(file_->read_only()) {
    for (auto const& extent : parts_.extents) {
        if (extent->owned) host_files_.push_back(extent->filename);
        if (extent->device && extent->device->read_only()) read_only_ = true;
        if (extent->kind == ExtentKind::sparse && !extent->appendable) read_only_ = true;
        stream_ |= extent->compressed;
        for (auto [offset, bytes] : extent->metadata())
            add_metadata(extent->device, offset, bytes, "header, grain directory or a grain table");
    }
    if (parts_.descriptor_offset) add_metadata(file_.get(), parts_.descriptor_offset, sector_bytes, "descriptor");
}

BackingReference VmdkImage::backing_reference() const {
    if (parts_.descriptor.parent_cid == no_parent) return {};
    return {parts_.descriptor.parent_hint, "vmdk"};
}

Capabilities VmdkImage::capabilities() {
    Capabilities can = MappedImage::capabilities();
    can.checkable = this;
    can.emptyable = read_only_ ? nullptr : this;
    // Where grains are not compressed, they are written as they are.
    can.compressed = !read_only_ && (!stream_ || parts_.extents.size() == 1) ? this : nullptr;
    return can;
}

Extent& VmdkImage::extent_at(std::uint64_t offset) const {
    auto after = std::ranges::upper_bound(parts_.extents, offset, {}, [](auto const& e) { return e->start; });
    VMM_ASSERT(after != parts_.extents.begin());
    return **std::prev(after);
}

// A child holds only what differs from its parent as it was: a changed parent makes it worthless.
Result<void> VmdkImage::check_parent() {
    if (parent_checked_ || !backing()) return {};
    if (auto parent = dynamic_cast<VmdkImage*>(backing());
        parent && parent->parts_.descriptor.cid != parts_.descriptor.parent_cid)
        return Error(fmt::format("The parent '{}' of '{}' was changed after the child was made (its CID is {:08x}, the "
                                 "child was made from {:08x})",
                                 backing()->filename(), file_name_, parent->parts_.descriptor.cid,
                                 parts_.descriptor.parent_cid),
                     EINVAL);
    parent_checked_ = true;
    return {};
}

Task<Result<void>> VmdkImage::make_empty() {
    auto parent = dynamic_cast<VmdkImage*>(backing());
    Descriptor& own = parts_.descriptor;
    if (!parent || parent->parts_.descriptor.cid_position == std::string::npos) co_return Result<void>{};
    std::string digits(8, '0');
    Bytes text(reinterpret_cast<std::uint8_t*>(digits.data()), digits.size());
    std::uint64_t const theirs = parent->parts_.descriptor_offset + parent->parts_.descriptor.cid_position;
    CO_TRY(co_await read_bytes(*parent->file_, theirs, text));
    std::uint32_t id = 0;
    auto [end, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), id, 16);
    if (bad != std::errc() || end != digits.data() + digits.size() || id == own.parent_cid) co_return Result<void>{};
    if (own.parent_cid_position == std::string::npos)
        co_return error("'{}' cannot record that its parent '{}' was changed", file_name_, parent->file_name_);
    CO_TRY(co_await write_bytes(*file_, parts_.descriptor_offset + own.parent_cid_position, ConstBytes(text)));
    own.parent_cid = parent->parts_.descriptor.cid = id;
    Result<void> flushed = co_await file_->flush();
    co_return flushed;
}

Result<std::optional<Mapping>> VmdkImage::find(std::uint64_t offset) {
    TRY(check_parent());
    return extent_at(offset).find(offset);
}

Task<Result<void>> VmdkImage::load(std::uint64_t offset) { return extent_at(offset).load_table(offset); }

Task<Result<NewPlace>> VmdkImage::allocate(Mapping was) {
    Extent& extent = extent_at(was.start);
    if (extent.kind != ExtentKind::sparse) co_return Error("A ZERO extent cannot be written", EPERM);
    CO_TRY(co_await extent.pin_table(was.start));
    NewPlace place;
    place.device = extent.device;
    place.host_offset = extent.append(extent.grain_bytes);
    if (place.host_offset / sector_bytes > UINT32_MAX) co_return Error("The VMDK extent is full", ENOSPC);
    place.reads_zero = place.host_offset >= extent.device->size_bytes();
    CO_TRY(co_await extend_file(*extent.device, place.host_offset + extent.grain_bytes));
    co_return place;
}

void VmdkImage::publish(Mapping const& was, NewPlace place) {
    extent_at(was.start).set_entry(was.start, std::uint32_t(place.host_offset / sector_bytes));
}

bool VmdkImage::mark_zero(Mapping const& was) {
    Extent& extent = extent_at(was.start);
    if (!extent.zeroed_grains) return false;
    extent.set_entry(was.start, gte_zeroed);
    return true;
}

bool VmdkImage::clean() const {
    return parts_.extents.size() == 1 && parts_.extents[0]->device == file_.get() && parts_.extents[0]->clean();
}

Task<Result<void>> VmdkImage::write_back() {
    for (auto const& extent : parts_.extents) {
        if (!extent->device) continue;
        CO_TRY(co_await extent->write_back());
    }
    Result<void> result = co_await file_->flush();
    co_return result;
}

Task<Result<void>> VmdkImage::before_first_write() {
    if (changed_) co_return Result<void>{};
    AsyncLock lock = co_await first_write_.lock();
    if (changed_) co_return Result<void>{};
    std::random_device random;
    std::uint32_t id = random();
    if (id == no_parent || id == parts_.descriptor.cid) id ^= 0x55;
    if (parts_.descriptor.cid_position != std::string::npos) {
        std::string digits = fmt::format("{:08x}", id);
        ConstBytes bytes(reinterpret_cast<std::uint8_t const*>(digits.data()), digits.size());
        CO_TRY(co_await write_bytes(*file_, parts_.descriptor_offset + parts_.descriptor.cid_position, bytes));
        parts_.descriptor.cid = id;
    }
    changed_ = true;
    co_return Result<void>{};
}

Task<Result<void>> VmdkImage::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    CO_TRY(check_range(offset, from.size_bytes(), size_));
    if (read_only_) co_return Error("Operation not permitted", EPERM);
    CO_TRY(co_await before_first_write());
    Result<void> result;
    if (stream_)
        result = co_await write_stream(offset, from);
    else
        result = co_await MappedImage::write(offset, from, durability);
    if (result.ok() && stream_ && durability == Durability::fua) result = co_await flush();
    co_return result;
}

Task<Result<void>> VmdkImage::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check_range(offset, length, size_));
    if (read_only_) co_return Error("Operation not permitted", EPERM);
    CO_TRY(co_await before_first_write());
    Result<void> result = co_await MappedImage::write_zeroes(offset, length, flags);
    co_return result;
}

Task<Result<FormatInfo>> VmdkImage::format_info() {
    FormatInfo info;
    if (unit_) info.cluster_size_bytes = unit_;
    info.specific_type = "vmdk";
    Value extents = Value::list();
    for (auto const& extent : parts_.extents) {
        Value one;
        if (extent->compressed) one.set("compressed", true);
        one.set("virtual-size", extent->length).set("filename", extent->filename);
        if (extent->kind == ExtentKind::sparse) one.set("cluster-size", extent->grain_bytes);
        one.set("format", extent->type);
        extents.add(std::move(one));
    }
    info.specific_data.set("cid", std::uint64_t(parts_.descriptor.cid));
    info.specific_data.set("parent-cid", std::uint64_t(parts_.descriptor.parent_cid));
    info.specific_data.set("create-type", parts_.descriptor.create_type).set("extents", std::move(extents));
    co_return info;
}

Task<Result<CheckReport>> VmdkImage::check(RepairMode repair, std::function<void(std::string_view)> message) {
    if (repair != RepairMode::none) co_return Error("Repairing VMDK images is not supported", ENOTSUP);
    CheckReport report;
    for (auto const& extent : parts_.extents) {
        CO_TRY(co_await extent->check(report, message));
    }
    co_return report;
}

} // namespace vmm::block::vmdk
