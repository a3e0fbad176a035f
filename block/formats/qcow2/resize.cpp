// Qcow2Image::resize: growing, shrinking and preallocation.
#include "block/formats/qcow2/image.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

Task<Result<void>> Qcow2Image::resize(ResizeRequest request) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    std::uint64_t const old_size = size_, new_size = request.new_size_bytes;
    Geometry const& g = store_->geometry();
    if (new_size % 512) co_return Error("The new size must be a multiple of 512", EINVAL);
    if (new_size > std::uint64_t(INT64_MAX) || g.l1_entries_for(new_size) > max_l1_bytes / 8)
        co_return Error("The image size is too large for file format 'qcow2' (try using a larger cluster size)", EFBIG);
    if (store_->header().version < 3 && store_->header().snapshot_count)
        co_return Error("Can't resize an image which has snapshots", ENOTSUP);
    if (new_size < old_size) {
        if (request.preallocation != Preallocation::off)
            co_return Error("Preallocation can't be used for shrinking an image", EINVAL);
        if (!request.shrink_ok) co_return Error("Use the --shrink option to perform a shrink operation.", EINVAL);
        Result<void> result = co_await shrink(old_size, new_size);
        co_return result;
    }
    if (new_size == old_size) co_return Result<void>{};
    Result<void> result = co_await grow(old_size, request);
    co_return result;
}

// The VM state of the active layer lies behind the disk; it cannot stay there when the disk's end moves.
Task<Result<void>> Qcow2Image::drop_vm_state(std::uint64_t disk_size) {
    Geometry const& g = store_->geometry();
    std::uint64_t begin = g.vm_state_offset(disk_size), end = std::uint64_t(store_->l1().size()) * g.l2_coverage();
    if (end <= begin) co_return Result<void>{};
    Result<void> result = co_await clusters_->discard(begin, end - begin);
    co_return result;
}

Task<Result<void>> Qcow2Image::grow(std::uint64_t old_size, ResizeRequest const& request) {
    Geometry const& g = store_->geometry();
    std::uint64_t const new_size = request.new_size_bytes;
    CO_TRY(co_await bitmaps_->resize(new_size));
    CO_TRY(co_await drop_vm_state(old_size));
    CO_TRY(co_await store_->grow_l1(g.l1_entries_for(new_size), old_size == 0));
    if (BlockDevice* data = data_file_.get()) {
        ResizeRequest data_request{.new_size_bytes = std::max(new_size, data->size_bytes())};
        Preallocation wanted = request.preallocation;
        data_request.preallocation = wanted == Preallocation::metadata ? Preallocation::off : wanted;
        if (Resizable* resizable = data->capabilities().resizable; resizable && data->size_bytes() < new_size) {
            CO_TRY(co_await resizable->resize(data_request));
        }
    }
    // The tables must be on disk before the header says that the disk is longer.
    CO_TRY(co_await store_->commit());
    set_size(new_size);
    store_->header().size_bytes = new_size;
    grown_ = true;
    // Neither the backing file nor the rest of the last cluster may show in the new part.
    std::uint64_t const tail_end = std::min(new_size, align_up(old_size, g.cluster()));
    bool const backed = backing() && backing()->size_bytes() > old_size;
    std::uint64_t const zero_end = backed ? new_size : tail_end;
    if (zero_end > old_size) {
        ZeroFlags flags;
        CO_TRY(co_await clusters_->write_zeroes(old_size, zero_end - old_size, flags));
    }
    if (request.preallocation != Preallocation::off) {
        CO_TRY(co_await preallocate(old_size, request));
    }
    CO_TRY(co_await store_->commit());
    Result<void> result = co_await store_->write_header();
    co_return result;
}

Task<Result<void>> Qcow2Image::preallocate(std::uint64_t old_size, ResizeRequest const& request) {
    std::uint64_t const new_size = request.new_size_bytes;
    CO_TRY(co_await clusters_->preallocate(old_size, new_size - old_size));
    if (data_file_) co_return Result<void>{};
    CO_TRY_ASSIGN(std::uint64_t clusters, co_await store_->refcounts().first_unused_cluster());
    std::uint64_t end = clusters << store_->geometry().cluster_bits;
    Resizable* resizable = store_->file().capabilities().resizable;
    if (end <= store_->file().size_bytes() || !resizable) co_return Result<void>{};
    ResizeRequest file_request{.new_size_bytes = end};
    if (request.preallocation != Preallocation::metadata) file_request.preallocation = request.preallocation;
    Result<void> result = co_await resizable->resize(file_request);
    co_return result;
}

Task<Result<void>> Qcow2Image::shrink(std::uint64_t old_size, std::uint64_t new_size) {
    Geometry const& g = store_->geometry();
    CO_TRY(co_await bitmaps_->resize(new_size));
    CO_TRY(co_await drop_vm_state(old_size));
    // The header first: a crash on the way then leaves only clusters nobody reaches.
    store_->header().size_bytes = new_size;
    CO_TRY(co_await store_->commit());
    CO_TRY(co_await store_->write_header());
    set_size(new_size);
    std::uint64_t const begin = align_up(new_size, g.cluster()), end = align_up(old_size, g.cluster());
    if (begin < end) {
        CO_TRY(co_await clusters_->discard(begin, end - begin));
    }
    for (std::uint64_t i = g.l1_entries_for(new_size); i < store_->l1().size(); ++i) {
        std::uint64_t entry = store_->l1()[i];
        if (!(entry & entry_offset_mask)) continue;
        store_->drop_l2(i);
    }
    CO_TRY(co_await store_->settle());
    CO_TRY(co_await cut_file());
    if (data_file_ && data_file_->limits().growable) {
        ResizeRequest request{.new_size_bytes = new_size, .shrink_ok = true};
        if (Resizable* data_resizable = data_file_->capabilities().resizable) {
            CO_TRY(co_await data_resizable->resize(request));
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Qcow2Image::cut_file() {
    CO_TRY_ASSIGN(std::uint64_t clusters, co_await store_->refcounts().first_unused_cluster());
    Resizable* resizable = store_->file().capabilities().resizable;
    std::uint64_t const file_end = clusters << store_->geometry().cluster_bits;
    if (resizable && store_->file().limits().growable && file_end < store_->file().size_bytes()) {
        ResizeRequest request{.new_size_bytes = file_end, .shrink_ok = true};
        CO_TRY(co_await resizable->resize(request));
    }
    co_return Result<void>{};
}

Task<Result<void>> Qcow2Image::make_empty() {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    Geometry const& g = store_->geometry();
    CO_TRY(co_await drop_vm_state(size_));
    std::uint64_t const tables = std::min<std::uint64_t>(g.l1_entries_for(size_), store_->l1().size());
    for (std::uint64_t i = 0; i < tables; ++i) {
        if (!(store_->l1()[i] & entry_offset_mask)) continue;
        CO_TRY(co_await clusters_->forget(i * g.l2_coverage(), g.l2_coverage()));
        store_->drop_l2(i);
        CO_TRY(co_await store_->relieve());
    }
    CO_TRY(co_await store_->settle());
    Result<void> cut = co_await cut_file();
    co_return cut;
}

} // namespace vmm::block::qcow2
