#include "block/formats/mapped/mapped_image.h"

#include "block/core/chain.h"
#include "block/core/debug_events.h"
#include "vmm/base/checked.h"
#include "vmm/base/log.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

namespace vmm::block {

namespace {

constexpr std::uint64_t sector_bytes = 512;   // the unit of encryption
constexpr std::uint64_t copy_bytes = 1 << 20; // how much of a unit is copied at once
constexpr unsigned max_merged_units = 4096;   // looked at to make one long request or status

} // namespace

MappedImage::MappedImage(FormatOpenArgs args, std::string_view name, std::uint64_t size, std::uint64_t unit)
    : context_(args.context), file_(std::move(args.file)), file_name_(std::move(args.filename)), name_(name),
      size_(size), unit_(unit), host_files_{file_name_}, debug_(file_->capabilities().debug) {}

Limits MappedImage::limits() const {
    Limits limits;
    limits.opt_transfer = std::uint32_t(std::min<std::uint64_t>(unit_, 1u << 30));
    limits.zeroes_alignment = limits.discard_alignment = std::max<std::uint32_t>(1, limits.opt_transfer);
    return limits;
}

Capabilities MappedImage::capabilities() {
    Capabilities can;
    can.allocation = this;
    can.info = this;
    can.sparse = read_only() ? nullptr : this;
    can.debug = debug_;
    return can;
}

Result<std::uint64_t> MappedImage::allocated_size_bytes() {
    std::uint64_t sum = 0;
    for (std::string const& name : host_files_) {
        struct stat status {};
        if (stat(name.c_str(), &status) < 0) return error_from_errno(errno, "Could not examine '{}'", name);
        sum += std::uint64_t(status.st_blocks) * 512;
    }
    return sum;
}

Task<Result<FormatInfo>> MappedImage::format_info() {
    FormatInfo info;
    if (unit_) info.cluster_size_bytes = unit_;
    info.encrypted = encrypted();
    co_return info;
}

Task<Result<void>> MappedImage::load(std::uint64_t) { VMM_UNREACHABLE(); }
Task<Result<NewPlace>> MappedImage::allocate(Mapping) { VMM_UNREACHABLE(); }
void MappedImage::publish(Mapping const&, NewPlace) { VMM_UNREACHABLE(); }
bool MappedImage::mark_zero(Mapping const&) { return false; }
Task<Result<void>> MappedImage::read_compressed(Mapping, Bytes) { VMM_UNREACHABLE(); }
Task<Result<void>> MappedImage::write_back() { co_return Result<void>{}; }
void MappedImage::decrypt(std::uint64_t, Bytes) { VMM_UNREACHABLE(); }
void MappedImage::encrypt(std::uint64_t, Bytes) { VMM_UNREACHABLE(); }

Task<Result<void>> MappedImage::close() {
    Result<void> result;
    if (!read_only()) result = co_await flush();
    co_return result;
}

Task<Result<void>> MappedImage::flush() {
    AsyncLock lock = co_await writing_back_.lock();
    Result<void> result;
    if (clean())
        result = co_await file_->flush();
    else
        result = co_await write_back();
    co_return result;
}

Task<Result<void>> MappedImage::extend_file(BlockDevice& device, std::uint64_t end) {
    AsyncLock lock = co_await extending_.lock();
    if (device.size_bytes() >= end) co_return Result<void>{};
    Resizable* resizable = device.capabilities().resizable;
    if (!resizable) co_return Error(fmt::format("'{}' is full and cannot grow", file_name_), ENOSPC);
    ResizeRequest request;
    request.new_size_bytes = end;
    Result<void> result = co_await resizable->resize(request);
    co_return result;
}

void MappedImage::add_metadata(BlockDevice* device, std::uint64_t start, std::uint64_t length, std::string_view what) {
    std::uint64_t const end = start > UINT64_MAX - length ? UINT64_MAX : start + length;
    if (length > 0) metadata_.push_back({device, start, end, what});
    sorted_ = false;
}

Result<void> MappedImage::check_place(Mapping const& at) {
    auto key = [](Area const& area) { return std::pair(area.device, area.start); };
    if (!sorted_) {
        sorted_ = true;
        std::ranges::sort(metadata_, {}, key);
        std::vector<Area> disjoint;
        for (Area const& area : metadata_) {
            bool const joins =
                !disjoint.empty() && disjoint.back().device == area.device && area.start < disjoint.back().end;
            if (joins)
                disjoint.back().end = std::max(disjoint.back().end, area.end);
            else
                disjoint.push_back(area);
        }
        metadata_ = std::move(disjoint);
    }
    auto next = std::ranges::upper_bound(metadata_, std::pair(at.device, at.host_offset), {}, key);
    auto hits = [&](Area const& area) {
        return area.device == at.device && area.start < at.host_offset + at.length && at.host_offset < area.end;
    };
    auto hit = next != metadata_.begin() && hits(*std::prev(next)) ? std::prev(next) : next;
    if (hit == metadata_.end() || !hits(*hit)) return {};
    return report(Error(fmt::format("'{}': the data at guest offset {:#x} would lie on the {} (file offset {:#x})",
                                    file_name_, at.start, hit->what, at.host_offset),
                        EIO));
}

Error MappedImage::report(Error error) {
    if (!std::exchange(reported_, true)) context_.log.message("", fmt::format("{}: {}", name_, error.message()));
    return error;
}

Task<Result<Mapping>> MappedImage::mapping_at(std::uint64_t offset) {
    for (;;) {
        Result<std::optional<Mapping>> found = find(offset);
        if (!found.ok()) co_return report(found.error());
        if (*found) {
            Mapping const& at = **found;
            VMM_ASSERT(at.start <= offset && offset - at.start < at.length);
            co_return at;
        }
        if (Result<void> loaded = co_await load(offset); !loaded.ok()) co_return report(loaded.error());
    }
}

Result<Mapping> MappedImage::stretch(Mapping at, std::uint64_t limit) {
    for (unsigned units = 0; units < max_merged_units && at.kind != Mapping::Kind::compressed; ++units) {
        std::uint64_t end = at.start + at.length;
        if (end >= limit) break;
        std::optional<Mapping> next = TRY(find(end));
        if (!next || next->kind != at.kind || next->device != at.device || next->ask_file != at.ask_file) break;
        VMM_ASSERT(next->start == end);
        if (at.kind == Mapping::Kind::data && next->host_offset != at.host_offset + at.length) break;
        at.length += next->length;
    }
    return at;
}

Task<Result<void>> MappedImage::old_content(Mapping was, Bytes unit) {
    if (was.kind == Mapping::Kind::compressed) {
        Result<void> result = co_await read_compressed(was, unit);
        co_return result;
    }
    if (was.kind == Mapping::Kind::zero || !backing()) {
        std::ranges::fill(unit, std::uint8_t(0));
        co_return Result<void>{};
    }
    IoVector whole(unit);
    Result<void> result = co_await read_backing(backing(), was.start, whole.spans());
    co_return result;
}

Task<Result<void>> MappedImage::read_encrypted(Mapping at, std::uint64_t offset, IoSpans to) {
    std::uint64_t length = to.size_bytes();
    std::uint64_t first = align_down(offset, sector_bytes);
    std::uint64_t end = std::min(align_up(offset + length, sector_bytes), at.start + at.length);
    std::vector<std::uint8_t> sectors(align_up(end - first, sector_bytes));
    CO_TRY(co_await read_bytes(*at.device, at.host_offset + (first - at.start), sectors));
    decrypt(first, sectors);
    copy_to_spans(to, 0, ConstBytes(sectors).subspan(offset - first, length));
    co_return Result<void>{};
}

Task<Result<void>> MappedImage::read_piece(Mapping at, std::uint64_t offset, IoSpans to) {
    Result<void> result;
    switch (at.kind) {
    case Mapping::Kind::data:
        if (encrypted())
            result = co_await read_encrypted(at, offset, to);
        else
            result = co_await at.device->read(at.host_offset + (offset - at.start), to);
        co_return result;
    case Mapping::Kind::zero: zero_spans(to, 0, to.size_bytes()); co_return result;
    case Mapping::Kind::absent: result = co_await read_backing(backing(), offset, to); co_return result;
    case Mapping::Kind::compressed: break;
    }
    std::vector<std::uint8_t> unit(at.length);
    if (result = co_await read_compressed(at, unit); !result.ok()) co_return report(result.error());
    copy_to_spans(to, 0, ConstBytes(unit).subspan(offset - at.start, to.size_bytes()));
    co_return result;
}

Task<Result<void>> MappedImage::read(std::uint64_t offset, IoSpans to) {
    std::uint64_t length = to.size_bytes();
    CO_TRY(check_range(offset, length, size_));
    if (debug_) co_await debug_->event(BlkdebugEvent::read_aio);
    for (std::uint64_t done = 0; done < length;) {
        CO_TRY_ASSIGN(Mapping first, co_await mapping_at(offset + done));
        CO_TRY_ASSIGN(Mapping at, stretch(first, offset + length));
        std::uint64_t n = std::min(length - done, at.start + at.length - (offset + done));
        if (n == length) {
            Result<void> whole = co_await read_piece(at, offset, to);
            co_return whole;
        }
        IoVector part = IoVector::slice(to.parts, done, n);
        CO_TRY(co_await read_piece(at, offset + done, part.spans()));
        done += n;
    }
    co_return Result<void>{};
}

Task<Result<void>> MappedImage::write_encrypted(Mapping at, std::uint64_t offset, ConstIoSpans from) {
    std::uint64_t length = from.size_bytes();
    std::uint64_t first = align_down(offset, sector_bytes);
    std::uint64_t end = align_up(offset + length, sector_bytes);
    RangeLocks::Hold hold = co_await allocations_.lock(first, end - first); // sectors are read, modified, written
    std::vector<std::uint8_t> sectors(end - first);
    if (first != offset || end != offset + length) {
        CO_TRY(co_await read_bytes(*at.device, at.host_offset + (first - at.start), sectors));
        decrypt(first, sectors);
    }
    copy_from_spans(from, 0, Bytes(sectors).subspan(offset - first, length));
    encrypt(first, sectors);
    Result<void> result = co_await write_bytes(*at.device, at.host_offset + (first - at.start), sectors);
    co_return result;
}

Task<Result<void>> MappedImage::write_in_place(Mapping at, std::uint64_t offset, ConstIoSpans from) {
    CO_TRY(check_place(at));
    Result<void> result;
    if (encrypted())
        result = co_await write_encrypted(at, offset, from);
    else
        result = co_await at.device->write(at.host_offset + (offset - at.start), from, Durability::cached);
    co_return result;
}

Task<Result<void>> MappedImage::fill_new(Mapping was, NewPlace place, std::uint64_t offset, ConstIoSpans from) {
    std::uint64_t length = from.size_bytes();
    bool zero_around = was.kind == Mapping::Kind::zero || (was.kind == Mapping::Kind::absent && !backing());
    std::uint64_t head = offset - was.start;
    if (zero_around && !encrypted()) {
        std::uint64_t tail = head + length;
        ZeroFlags flags;
        flags.may_unmap = true;
        if (!place.reads_zero && head > 0) {
            CO_TRY(co_await block::write_zeroes(*place.device, place.host_offset, head, flags));
        }
        if (!place.reads_zero && tail < was.length) {
            CO_TRY(co_await block::write_zeroes(*place.device, place.host_offset + tail, was.length - tail, flags));
        }
        Result<void> written = co_await place.device->write(place.host_offset + head, from, Durability::cached);
        co_return written;
    }
    std::vector<std::uint8_t> unit(align_up(was.length, sector_bytes));
    if (length < was.length) {
        if (debug_) co_await debug_->event(BlkdebugEvent::cow_read);
        CO_TRY(co_await old_content(was, Bytes(unit).first(was.length)));
    }
    copy_from_spans(from, 0, Bytes(unit).subspan(head, length));
    if (encrypted()) encrypt(was.start, unit);
    Result<void> written = co_await write_bytes(*place.device, place.host_offset, unit);
    co_return written;
}

// `offset` lies in a unit without a place; `from` does not reach beyond it.
Task<Result<void>> MappedImage::write_new(std::uint64_t offset, ConstIoSpans from) {
    CO_TRY_ASSIGN(Mapping unit, co_await mapping_at(offset));
    RangeLocks::Hold hold = co_await allocations_.lock(unit.start, unit.length);
    CO_TRY_ASSIGN(Mapping was, co_await mapping_at(offset)); // somebody may have been faster
    if (was.kind == Mapping::Kind::data) {
        hold.release();
        Result<void> result = co_await write_in_place(was, offset, from);
        co_return result;
    }
    if (debug_) co_await debug_->event(BlkdebugEvent::cluster_alloc);
    Result<NewPlace> found = co_await allocate(was);
    if (!found.ok()) co_return report(found.error());
    NewPlace const place = *found;
    CO_TRY(co_await fill_new(was, place, offset, from));
    publish(was, place);
    co_return Result<void>{};
}

// `offset` begins a unit. Whole units in a row that have no place get theirs together, so that a long write is one
// stretch of the file; bytes written, 0 when there are none.
Task<Result<std::uint64_t>> MappedImage::write_new_units(std::uint64_t offset, ConstIoSpans from) {
    struct Unit {
        Mapping was;
        NewPlace place;
    };
    std::vector<Unit> units;
    std::uint64_t const end = offset + from.size_bytes();
    RangeLocks::Hold hold = co_await allocations_.lock(offset, end - offset);
    std::uint64_t at = offset;
    while (at < end) {
        CO_TRY_ASSIGN(Mapping was, co_await mapping_at(at));
        if (was.kind == Mapping::Kind::data || was.length > end - at) break;
        if (debug_) co_await debug_->event(BlkdebugEvent::cluster_alloc);
        CO_TRY_ASSIGN(NewPlace place, co_await allocate(was));
        at += was.length;
        units.push_back({was, place});
    }
    for (std::size_t first = 0; first < units.size();) {
        std::size_t next = first;
        std::uint64_t bytes = 0;
        NewPlace const start = units[first].place;
        while (next < units.size() && units[next].place.device == start.device &&
               units[next].place.host_offset == start.host_offset + bytes)
            bytes += units[next++].was.length;
        IoVector part = IoVector::slice(from.parts, units[first].was.start - offset, bytes);
        CO_TRY(co_await start.device->write(start.host_offset, part.const_spans(), Durability::cached));
        first = next;
    }
    for (Unit const& unit : units) publish(unit.was, unit.place);
    co_return at - offset;
}

Task<Result<void>> MappedImage::write_piece(Mapping at, std::uint64_t offset, ConstIoSpans from) {
    Result<void> result;
    if (at.kind == Mapping::Kind::data)
        result = co_await write_in_place(at, offset, from);
    else
        result = co_await write_new(offset, from);
    co_return result;
}

Task<Result<void>> MappedImage::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    std::uint64_t length = from.size_bytes();
    CO_TRY(check_range(offset, length, size_));
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    if (zero_detection() != DetectZeroes::off) {
        CO_TRY_ASSIGN(bool zeroed, co_await write_if_zero(*this, offset, from, durability));
        if (zeroed) co_return Result<void>{};
    }
    if (debug_) co_await debug_->event(BlkdebugEvent::write_aio);
    for (std::uint64_t done = 0; done < length;) {
        CO_TRY_ASSIGN(Mapping at, co_await mapping_at(offset + done));
        if (at.kind == Mapping::Kind::data) {
            CO_TRY_ASSIGN(at, stretch(at, offset + length));
        } else if (at.start == offset + done && at.length < length - done && !encrypted()) {
            IoVector rest = IoVector::slice(from.parts, done, length - done);
            CO_TRY_ASSIGN(std::uint64_t written, co_await write_new_units(at.start, rest.const_spans()));
            done += written;
            if (written > 0) continue;
        }
        std::uint64_t n = std::min(length - done, at.start + at.length - (offset + done));
        IoVector part = IoVector::slice(from.parts, done, n);
        CO_TRY(co_await write_piece(at, offset + done, part.const_spans()));
        done += n;
    }
    Result<void> result;
    if (durability == Durability::fua) result = co_await flush();
    co_return result;
}

Task<Result<void>> MappedImage::zero_piece(Mapping at, std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    if (at.kind == Mapping::Kind::zero || (at.kind == Mapping::Kind::absent && !backing())) co_return Result<void>{};
    bool whole = offset == at.start && length == at.length;
    if (whole && at.kind != Mapping::Kind::data) {
        RangeLocks::Hold hold = co_await allocations_.lock(at.start, at.length);
        CO_TRY_ASSIGN(Mapping now, co_await mapping_at(offset));
        if (now.kind == at.kind && now.length == at.length && mark_zero(now)) co_return Result<void>{};
        at = now;
    }
    if (at.kind == Mapping::Kind::data && !encrypted()) {
        CO_TRY(check_place(at));
        flags.durability = Durability::cached;
        Result<void> result =
            co_await block::write_zeroes(*at.device, at.host_offset + (offset - at.start), length, flags);
        co_return result;
    }
    if (flags.no_fallback) co_return Error("Operation not supported", ENOTSUP);
    std::vector<std::uint8_t> zeroes(std::min(length, copy_bytes));
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t n = std::min<std::uint64_t>(zeroes.size(), length - done);
        IoVector part(ConstBytes(zeroes).first(n));
        CO_TRY(co_await write_piece(at, offset + done, part.const_spans()));
        done += n;
        CO_TRY_ASSIGN(at, co_await mapping_at(offset));
    }
    co_return Result<void>{};
}

Task<Result<void>> MappedImage::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check_range(offset, length, size_));
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    for (std::uint64_t done = 0; done < length;) {
        CO_TRY_ASSIGN(Mapping at, co_await mapping_at(offset + done));
        std::uint64_t n = std::min(length - done, at.start + at.length - (offset + done));
        CO_TRY(co_await zero_piece(at, offset + done, n, flags));
        done += n;
    }
    Result<void> result;
    if (flags.durability == Durability::fua) result = co_await flush();
    co_return result;
}

Task<Result<void>> MappedImage::discard(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check_range(offset, length, size_));
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    if (encrypted()) co_return Result<void>{}; // zeroes in the file would read as noise
    for (std::uint64_t done = 0; done < length;) {
        CO_TRY_ASSIGN(Mapping first, co_await mapping_at(offset + done));
        CO_TRY_ASSIGN(Mapping at, stretch(first, offset + length));
        std::uint64_t n = std::min(length - done, at.start + at.length - (offset + done));
        if (at.kind == Mapping::Kind::data) {
            CO_TRY(check_place(at));
            CO_TRY(co_await block::discard(*at.device, at.host_offset + (offset + done - at.start), n));
        }
        done += n;
    }
    co_return Result<void>{};
}

Task<Result<BlockStatus>> MappedImage::status(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check_range(offset, length, size_));
    CO_TRY_ASSIGN(Mapping first, co_await mapping_at(offset));
    CO_TRY_ASSIGN(Mapping at, stretch(first, offset + length));
    BlockStatus status;
    status.length = std::min(length, at.start + at.length - offset);
    Format const* format = context_.formats.find(name_);
    bool const alone = !format || !format->supports_backing; // what is absent can only be zeroes
    status.allocated = at.kind != Mapping::Kind::absent || alone;
    status.zero = at.kind == Mapping::Kind::zero || (at.kind == Mapping::Kind::absent && alone);
    status.data = at.kind == Mapping::Kind::data || at.kind == Mapping::Kind::compressed;
    status.compressed = at.kind == Mapping::Kind::compressed;
    if (at.kind != Mapping::Kind::data || encrypted()) co_return status;
    status.host_offset = at.host_offset + (offset - at.start);
    status.host_file = at.host_file ? *at.host_file : file_name_;
    AllocationMap* below = at.ask_file ? at.device->capabilities().allocation : nullptr;
    if (!below) co_return status;
    CO_TRY_ASSIGN(BlockStatus host, co_await below->status(*status.host_offset, status.length));
    status.length = std::min(status.length, host.length);
    status.zero = host.zero;
    if (at.file_is_disk) status.data = host.data;
    co_return status;
}

Result<void> require_read_only(FormatOpenArgs const& args, std::string_view format) {
    if (args.options.read_only || args.options.auto_read_only) return {};
    return Error(fmt::format("'{}' images can only be read: open '{}' read-only", format, args.filename), EACCES);
}

Result<void> check_inside_file(BlockDevice const& file, std::uint64_t offset, std::uint64_t length,
                               std::string_view what) {
    std::uint64_t size = file.size_bytes();
    if (offset > size || length > size - offset)
        return error("{} ({} bytes at offset {}) lies beyond the end of the file ({} bytes)", what, length, offset,
                     size);
    return {};
}

} // namespace vmm::block
