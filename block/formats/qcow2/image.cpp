#include "block/formats/qcow2/image.h"

#include "vmm/base/checked.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

Qcow2Image::Qcow2Image(Parts parts)
    : store_(std::move(parts.store)), data_file_(std::move(parts.data_file)),
      data_filename_(std::move(parts.data_filename)), encryption_(std::move(parts.encryption)), no_io_(parts.no_io) {
    store_->set_data_file(data_file_.get());
    Clusters::Needs needs{.store = *store_,
                          .image = *this,
                          .data = data_file_ ? *data_file_ : store_->file(),
                          .external = store_->header().external_data(),
                          .cipher = encryption_.cipher.get(),
                          .cipher_by_host = store_->header().crypt_method == CryptMethod::luks,
                          .debug = store_->file().capabilities().debug};
    clusters_ = std::make_unique<Clusters>(needs);
    snapshots_ = std::make_unique<SnapshotTable>(*store_, *clusters_);
    bitmaps_ = std::make_unique<BitmapTable>(*store_);
    set_size(store_->header().size_bytes);
}

void Qcow2Image::set_size(std::uint64_t bytes) {
    size_ = bytes;
    clusters_->set_disk_size(bytes);
}

BackingReference Qcow2Image::backing_reference() const {
    Header const& h = store_->header();
    return {h.backing_file, h.backing_format.value_or("")};
}

Limits Qcow2Image::limits() const {
    Limits l;
    l.opt_transfer = std::uint32_t(store_->geometry().cluster());
    l.zeroes_alignment = std::uint32_t(store_->geometry().subcluster());
    l.discard_alignment = std::uint32_t(store_->geometry().cluster());
    return l;
}

Capabilities Qcow2Image::capabilities() {
    Header const& h = store_->header();
    bool compresses = !h.external_data() && h.crypt_method == CryptMethod::none;
    return Capabilities{.sparse = this,
                        .allocation = this,
                        .resizable = this,
                        .snapshots = h.external_data() ? nullptr : this,
                        .checkable = this,
                        .compressed = compresses ? this : nullptr,
                        .info = this,
                        .amendable = this,
                        .backing_link = this,
                        .bitmaps = store_->header().version >= 3 ? bitmaps_.get() : nullptr,
                        .emptyable = this,
                        .debug = store_->file().capabilities().debug};
}

Result<std::uint64_t> Qcow2Image::allocated_size_bytes() {
    struct stat status {};
    if (stat(store_->filename().c_str(), &status) < 0)
        return error_from_errno(errno, "Could not examine '{}'", store_->filename());
    return std::uint64_t(status.st_blocks) * 512;
}

Task<Result<void>> Qcow2Image::close() {
    if (read_only() || !store_->writable()) co_return Result<void>{};
    CO_TRY(co_await store_->settle());
    CO_TRY(co_await bitmaps_->store());
    // Readers may insist on whole clusters: the file ends at a cluster's end once data was put behind the tables.
    std::uint64_t end = store_->file().size_bytes(), whole = align_up(end, store_->geometry().cluster());
    if (end != whole && grown_ && store_->file().limits().growable) {
        ResizeRequest request{.new_size_bytes = whole};
        if (Resizable* resizable = store_->file().capabilities().resizable) {
            CO_TRY(co_await resizable->resize(request));
        }
    }
    Result<void> flushed = co_await store_->commit();
    co_return flushed;
}

// --- requests

Task<Result<void>> Qcow2Image::read(std::uint64_t offset, IoSpans to) {
    CO_TRY(check_range(offset, to.size_bytes(), size_));
    if (no_io_) co_return Error("The image was opened for its metadata only", EIO);
    Result<void> result = co_await clusters_->read(offset, to);
    co_return result;
}

Result<void> Qcow2Image::check_write(std::uint64_t offset, std::uint64_t length) {
    if (read_only()) return Error("Operation not permitted", EPERM);
    if (no_io_) return Error("The image was opened for its metadata only", EIO);
    TRY(check_range(offset, length, size_));
    grown_ = true;
    return {};
}

Task<Result<void>> Qcow2Image::flush_if(Durability durability) {
    if (durability == Durability::cached) co_return Result<void>{};
    Result<void> flushed = co_await flush();
    co_return flushed;
}

Task<Result<void>> Qcow2Image::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    CO_TRY(check_write(offset, from.size_bytes()));
    if (zero_detection() != DetectZeroes::off) {
        CO_TRY_ASSIGN(bool zeroed, co_await write_if_zero(*this, offset, from, durability));
        if (zeroed) co_return Result<void>{};
    }
    if (!bitmaps_->ready_to_record()) {
        CO_TRY(co_await bitmaps_->start_recording());
    }
    bitmaps_->record(offset, from.size_bytes());
    CO_TRY(co_await clusters_->write(offset, from));
    if (durability == Durability::cached) co_return Result<void>{};
    Result<void> flushed = co_await flush();
    co_return flushed;
}

Task<Result<void>> Qcow2Image::flush() {
    if (read_only()) co_return Result<void>{};
    Result<void> result = co_await store_->commit();
    co_return result;
}

Task<Result<void>> Qcow2Image::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check_write(offset, length));
    if (!bitmaps_->ready_to_record()) {
        CO_TRY(co_await bitmaps_->start_recording());
    }
    bitmaps_->record(offset, length);
    if (length == 0) co_return Result<void>{};
    CO_TRY(co_await clusters_->write_zeroes(offset, length, flags));
    Result<void> flushed = co_await flush_if(flags.durability);
    co_return flushed;
}

Task<Result<void>> Qcow2Image::discard(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check_write(offset, length));
    if (!store_->passes_discards()) co_return Result<void>{}; // discard=ignore
    if (!bitmaps_->ready_to_record()) {
        CO_TRY(co_await bitmaps_->start_recording());
    }
    bitmaps_->record(offset, length);
    Result<void> result = co_await clusters_->discard(offset, length);
    co_return result;
}

Task<Result<void>> Qcow2Image::write_compressed(std::uint64_t offset, ConstIoSpans from) {
    CO_TRY(check_write(offset, from.size_bytes()));
    if (!bitmaps_->ready_to_record()) {
        CO_TRY(co_await bitmaps_->start_recording());
    }
    bitmaps_->record(offset, from.size_bytes());
    Result<void> result = co_await clusters_->write_compressed(offset, from);
    co_return result;
}

Task<Result<bool>> Qcow2Image::data_may_be_holes() {
    if (data_may_be_holes_) co_return *data_may_be_holes_;
    data_may_be_holes_ = false;
    Result<std::uint64_t> allocated = allocated_size_bytes();
    std::uint64_t const file_bytes = store_->file().size_bytes(), cluster = store_->geometry().cluster();
    if (data_file_ || !allocated.ok() || *allocated >= file_bytes) co_return false;
    // A tenth of the clusters in use, or two, is what padding and tables that were only begun may leave unwritten;
    // where qemu-img, watched on images of 4 to 200 clusters, draws the line too.
    std::uint64_t const present = *allocated / cluster;
    std::uint64_t used = 0, limit = std::max(present * 10 / 9, present + 2);
    for (std::uint64_t i = 0; i < div_ceil(file_bytes, cluster) && used < limit; ++i) {
        CO_TRY_ASSIGN(std::uint64_t count, co_await store_->refcounts().get(i));
        used += count != 0;
    }
    data_may_be_holes_ = used >= limit;
    co_return *data_may_be_holes_;
}

Task<Result<BlockStatus>> Qcow2Image::status(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check_range(offset, length, size_));
    CO_TRY_ASSIGN(Run run, co_await clusters_->map(offset, length));
    BlockStatus status;
    status.length = run.length;
    status.allocated = run.kind != Kind::unallocated;
    status.zero = run.kind == Kind::zero;
    status.data = run.kind == Kind::data || run.kind == Kind::compressed;
    status.compressed = run.kind == Kind::compressed;
    if (run.has_host && run.kind != Kind::compressed && store_->header().crypt_method == CryptMethod::none) {
        status.host_offset = run.host;
        status.host_file = data_file_ ? data_filename_ : filename();
    }
    if (run.kind == Kind::data && status.host_offset) {
        CO_TRY_ASSIGN(bool ask_file, co_await data_may_be_holes());
        AllocationMap* map = store_->file().capabilities().allocation;
        if (ask_file && map) {
            CO_TRY_ASSIGN(BlockStatus below, co_await map->status(run.host, status.length));
            status.length = below.length;
            status.zero = below.zero;
        }
    }
    // Neighbours of the same kind whose place does not matter are one stretch.
    while (status.length < length && !status.host_offset && !status.compressed) {
        CO_TRY_ASSIGN(Run next, co_await clusters_->map(offset + status.length, length - status.length));
        if (next.kind != run.kind || next.has_host) break;
        status.length += next.length;
    }
    co_return status;
}

Task<Result<CheckReport>> Qcow2Image::check(RepairMode repair, std::function<void(std::string_view)> message) {
    if (repair != RepairMode::none && read_only()) co_return Error("Operation not permitted", EPERM);
    if (!read_only() && store_->writable()) {
        CO_TRY(co_await store_->settle());
    }
    store_->allow_repair(repair != RepairMode::none);
    CO_TRY_ASSIGN(std::vector<Extent> others, co_await bitmaps_->extents());
    Checker checker(*store_, *snapshots_, std::move(others), repair, std::move(message));
    Result<CheckReport> report = co_await checker.run();
    co_return report;
}

} // namespace vmm::block::qcow2
