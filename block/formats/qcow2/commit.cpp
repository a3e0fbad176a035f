// Store's writing side: the order in which metadata reaches the disk.
#include "block/core/capabilities.h"
#include "block/formats/qcow2/store.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

namespace {
constexpr std::size_t max_parallel_writes = 16;
}

// What was dirty at one moment; the file will hold exactly this when the pass is through.
struct Store::Pass {
    std::vector<TableCopy> refcount_blocks, l2_tables;
    bool refcount_table = false, refcount_table_moved = false;
    std::vector<std::uint64_t> refcount_table_entries;
    std::uint64_t refcount_table_offset = 0, refcount_table_room = 0;
    bool l1 = false, l1_moved = false;
    std::vector<std::uint64_t> l1_entries;
    std::uint64_t l1_offset = 0;
};

bool Store::anything_dirty() {
    return l1_dirty_ || refcounts_.table_dirty() || l2_tables_.dirty_tables() || refcounts_.blocks().dirty_tables() ||
           !released_.empty();
}

// What the tables refer to must be as stable as they are.
Task<Result<void>> Store::flush_files() {
    if (data_file_) {
        CO_TRY(co_await data_file_->flush());
    }
    Result<void> flushed = co_await file().flush();
    co_return flushed;
}

Task<Result<void>> Store::commit() {
    std::uint64_t const mine = ++commits_asked_;
    AsyncLock lock = co_await commit_mutex_.lock();
    if (commits_done_ >= mine) co_return Result<void>{}; // one that began after we asked did it
    std::uint64_t const covers = commits_asked_;
    Result<void> result = co_await run_commit();
    if (result.ok()) commits_done_ = covers;
    co_return result;
}

Task<Result<void>> Store::relieve() {
    std::uint64_t const limit = std::max<std::uint64_t>(
        std::min<std::uint64_t>(l2_tables_.max_tables(), refcounts_.blocks().max_tables()) / 2 * geometry_.cluster(),
        1u << 20);
    if (l2_tables_.dirty_bytes() <= limit && refcounts_.blocks().dirty_bytes() <= limit) co_return Result<void>{};
    Result<void> result = co_await commit();
    co_return result;
}

Task<Result<void>> Store::settle() {
    do {
        CO_TRY(co_await commit());
    } while (!waiting_.empty() && generations_.over(waiting_.front().generation));
    co_return Result<void>{};
}

Task<Result<void>> Store::run_commit() {
    if (!s_.writable) co_return Result<void>{};
    if (corrupt_ && !repairing_) co_return Error("The image is corrupt and was not written to", EIO);
    CO_TRY(co_await apply_released());
    if (!anything_dirty()) {
        Result<void> flushed = co_await flush_files();
        co_return flushed;
    }
    Pass pass;
    pass.refcount_blocks = refcounts_.blocks().take_dirty();
    pass.l2_tables = l2_tables_.take_dirty();
    pass.refcount_table = refcounts_.table_dirty();
    pass.refcount_table_moved = refcounts_.table_moved();
    if (pass.refcount_table) {
        pass.refcount_table_entries = refcounts_.table();
        pass.refcount_table_offset = s_.header.refcount_table_offset;
        pass.refcount_table_room = (std::uint64_t(s_.header.refcount_table_clusters) << geometry_.cluster_bits) / 8;
        // A table that outgrew its place is being moved by somebody right now: what fits goes out, the rest follows.
        pass.refcount_table_entries.resize(
            std::min<std::uint64_t>(pass.refcount_table_entries.size(), pass.refcount_table_room));
        refcounts_.table_written();
    }
    pass.l1 = std::exchange(l1_dirty_, false);
    pass.l1_moved = std::exchange(l1_moved_, false);
    if (pass.l1) {
        pass.l1_entries = l1_;
        pass.l1_offset = s_.header.l1_offset;
    }
    for (Extent const& old : refcounts_.take_retired()) release(old.offset, old.clusters);
    std::vector<Released> released = std::exchange(released_, {});
    std::uint64_t const generation = generations_.advance();

    Result<void> result = co_await write_pass(pass);
    if (result.ok()) {
        if (!released.empty()) waiting_.push_back({generation, std::move(released)});
        co_return Result<void>{};
    }
    for (TableCopy const& copy : pass.refcount_blocks) refcounts_.blocks().put_back(copy);
    for (TableCopy const& copy : pass.l2_tables) l2_tables_.put_back(copy);
    if (pass.refcount_table) refcounts_.table_not_written(pass.refcount_table_moved);
    l1_dirty_ |= pass.l1;
    l1_moved_ |= pass.l1_moved;
    released_.insert(released_.begin(), released.begin(), released.end());
    co_return result;
}

Task<Result<void>> Store::write_pass(Pass& pass) {
    DebugEvents* const debug = file().capabilities().debug;
    if (debug && !pass.refcount_blocks.empty()) co_await debug->event(BlkdebugEvent::refblock_update_part);
    CO_TRY(co_await write_tables(refcounts_.blocks(), pass.refcount_blocks, Area::refcount_block));
    CO_TRY(co_await flush_files());
    if (pass.refcount_table) {
        if (debug)
            co_await debug->event(pass.refcount_table_moved ? BlkdebugEvent::refblock_alloc_write_table
                                                            : BlkdebugEvent::refblock_alloc_hookup);
        CO_TRY(co_await write_table_array(pass.refcount_table_entries, pass.refcount_table_offset,
                                          pass.refcount_table_moved ? pass.refcount_table_room : 0));
        CO_TRY(co_await file().flush());
    }
    if (pass.refcount_table_moved) { // counts that only the new table leads to must be found before they are relied on
        if (debug) co_await debug->event(BlkdebugEvent::refblock_alloc_switch_table);
        TablePlaces places = places_;
        places.refcount_table_offset = pass.refcount_table_offset;
        places.refcount_table_clusters = std::uint32_t((pass.refcount_table_room * 8) >> geometry_.cluster_bits);
        CO_TRY(co_await write_places(places));
    }
    if (!pass.l2_tables.empty()) {
        CO_TRY(co_await write_tables(l2_tables_, pass.l2_tables, Area::active_l2));
        CO_TRY(co_await file().flush());
    }
    if (pass.l1) {
        // Behind the end of the file nothing stale can follow the entries.
        std::uint64_t room = align_up<std::uint64_t>(pass.l1_entries.size() * 8, geometry_.cluster()) / 8;
        if (pass.l1_offset >= file().size_bytes()) room = 0;
        if (debug) co_await debug->event(pass.l1_moved ? BlkdebugEvent::l1_grow_write_table : BlkdebugEvent::l1_update);
        CO_TRY(co_await write_table_array(pass.l1_entries, pass.l1_offset, pass.l1_moved ? room : 0));
        CO_TRY(co_await file().flush());
    }
    if (pass.l1_moved) {
        if (debug) co_await debug->event(BlkdebugEvent::l1_grow_activate_table);
        TablePlaces places = places_;
        places.l1_offset = pass.l1_offset;
        places.l1_entries = std::uint32_t(pass.l1_entries.size());
        CO_TRY(co_await write_places(places));
    }
    co_return Result<void>{};
}

Task<Result<void>> Store::write_places(TablePlaces places) {
    AsyncLock lock = co_await header_mutex_.lock();
    struct { // four fields in a row
        be32 l1_size;
        be64 l1_table_offset, refcount_table_offset;
        be32 refcount_table_clusters;
    } raw{places.l1_entries, places.l1_offset, places.refcount_table_offset, places.refcount_table_clusters};
    static_assert(sizeof raw == 24);
    constexpr std::uint64_t l1_size_at = 36; // in the header
    ConstBytes fields(reinterpret_cast<std::uint8_t const*>(&raw), sizeof raw);
    CO_TRY(co_await write_bytes(file(), l1_size_at, fields));
    CO_TRY(co_await file().flush());
    places_ = places;
    co_return Result<void>{};
}

Task<Result<void>> Store::write_tables(TableCache& cache, std::vector<TableCopy>& copies, Area area) {
    for (TableCopy const& copy : copies)
        if (auto other = areas_.conflict(copy.table->offset, geometry_.cluster(), area))
            co_return co_await corrupt(
                fmt::format("Preventing invalid write on metadata (overlaps with {})", area_name(*other)));
    TaskGroup group(max_parallel_writes);
    for (TableCopy const& copy : copies) {
        bool started = co_await group.start(cache.write(copy));
        if (!started) break;
    }
    Result<void> result = co_await group.finish();
    co_return result;
}

Task<Result<void>> Store::write_table_array(std::vector<std::uint64_t> const& entries, std::uint64_t offset,
                                            std::uint64_t room_entries) {
    std::vector<std::uint8_t> raw(std::max<std::uint64_t>(entries.size(), room_entries) * 8);
    for (std::size_t i = 0; i < entries.size(); ++i) store_be64(raw.data() + i * 8, entries[i]);
    if (raw.empty()) co_return Result<void>{};
    ConstBytes all(raw);
    Result<void> result = co_await write_bytes(file(), offset, all);
    co_return result;
}

Task<Result<void>> Store::write_header() {
    AsyncLock lock = co_await header_mutex_.lock();
    Header header = s_.header; // whose tables may have moved in memory only
    header.l1_entries = places_.l1_entries;
    header.l1_offset = places_.l1_offset;
    header.refcount_table_offset = places_.refcount_table_offset;
    header.refcount_table_clusters = places_.refcount_table_clusters;
    CO_TRY_ASSIGN(std::vector<std::uint8_t> cluster, serialize_header(header));
    ConstBytes all(cluster);
    CO_TRY(co_await write_bytes(file(), 0, all));
    Result<void> flushed = co_await file().flush();
    co_return flushed;
}

Task<Result<void>> Store::write_features() {
    if (s_.header.version < 3) co_return Result<void>{};
    AsyncLock lock = co_await header_mutex_.lock();
    std::uint8_t raw[24];
    store_be64(raw, s_.header.incompatible);
    store_be64(raw + 8, s_.header.compatible);
    store_be64(raw + 16, s_.header.autoclear);
    ConstBytes fields(raw, sizeof raw);
    CO_TRY(co_await write_bytes(file(), 72, fields));
    Result<void> flushed = co_await file().flush();
    co_return flushed;
}

} // namespace vmm::block::qcow2
