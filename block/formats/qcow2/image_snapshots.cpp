// Qcow2Image: the Snapshots capability.
#include "block/formats/qcow2/image.h"

#include <cerrno>

namespace vmm::block::qcow2 {

std::vector<SnapshotInfo> Qcow2Image::list() const {
    std::vector<SnapshotInfo> out;
    for (StoredSnapshot const& s : snapshots_->all()) out.push_back(s.info);
    return out;
}

Task<Result<void>> Qcow2Image::create(SnapshotRequest request) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    CO_TRY(co_await snapshots_->create(std::move(request), size_));
    grown_ = true;
    // The state belongs to the snapshot now; kept in the active tables it would be copied with the next one again.
    CO_TRY(co_await drop_vm_state(size_));
    Result<void> result = co_await store_->settle();
    co_return result;
}

namespace {
Error no_such_snapshot(std::string const& name) { return Error(fmt::format("Can't find snapshot '{}'", name), ENOENT); }
} // namespace

Task<Result<void>> Qcow2Image::apply(std::string name_or_id) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    StoredSnapshot const* found = snapshots_->find(name_or_id);
    if (!found) co_return no_such_snapshot(name_or_id);
    StoredSnapshot const snapshot = *found;
    if (snapshot.info.disk_size_bytes != size_) {
        ResizeRequest request{.new_size_bytes = snapshot.info.disk_size_bytes, .shrink_ok = true};
        CO_TRY(co_await resize(request));
    }
    grown_ = true;
    CO_TRY(co_await bitmaps_->start_recording());
    bitmaps_->record(0, size_); // anything may be different now
    Result<void> result = co_await snapshots_->apply(snapshot);
    co_return result;
}

Task<Result<void>> Qcow2Image::remove(std::string name_or_id) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    StoredSnapshot const* found = snapshots_->find(name_or_id);
    if (!found) co_return no_such_snapshot(name_or_id);
    Result<void> result = co_await snapshots_->remove(*found);
    co_return result;
}

Task<Result<void>> Qcow2Image::load_read_only(std::string name_or_id) {
    StoredSnapshot const* found = snapshots_->find(name_or_id);
    if (!found) co_return no_such_snapshot(name_or_id);
    CO_TRY(co_await flush());
    CO_TRY_ASSIGN(std::vector<std::uint64_t> l1, co_await snapshots_->read_l1(*found));
    if (l1.size() < store_->geometry().l1_entries_for(found->info.disk_size_bytes))
        co_return Error(fmt::format("Snapshot '{}': the L1 table is too small for its disk", name_or_id), EINVAL);
    store_->make_read_only();
    view_only_ = true;
    store_->replace_l1(std::move(l1));
    set_size(found->info.disk_size_bytes);
    co_return Result<void>{};
}

Task<Result<void>> Qcow2Image::read_vm_state(std::uint64_t offset, IoSpans to) {
    std::uint64_t const base = store_->geometry().vm_state_offset(size_);
    CO_TRY(check_range(offset, to.size_bytes(), std::uint64_t(INT64_MAX) - base));
    Result<void> result = co_await clusters_->read(base + offset, to);
    co_return result;
}

Task<Result<void>> Qcow2Image::write_vm_state(std::uint64_t offset, ConstIoSpans from) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    std::uint64_t const base = store_->geometry().vm_state_offset(size_);
    CO_TRY(check_range(offset, from.size_bytes(), std::uint64_t(INT64_MAX) - base));
    grown_ = true;
    CO_TRY(co_await store_->grow_l1(store_->geometry().l1_entries_for(base + offset + from.size_bytes())));
    Result<void> result = co_await clusters_->write(base + offset, from);
    co_return result;
}

} // namespace vmm::block::qcow2
