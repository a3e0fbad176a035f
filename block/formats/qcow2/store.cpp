#include "block/formats/qcow2/store.h"

#include "block/core/capabilities.h"
#include "vmm/base/checked.h"
#include "vmm/base/log.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

namespace {
std::size_t tables_in(std::uint64_t bytes, Header const& h) {
    return std::max<std::uint64_t>(bytes >> h.cluster_bits, 16);
}
// An image needs no more L2 tables in memory than it has.
std::size_t l2_cache_tables(std::uint64_t bytes, Header const& h) {
    return std::min<std::size_t>(tables_in(bytes, h), std::max<std::size_t>(h.l1_entries + 16, 64));
}
} // namespace

Store::Store(Setup setup)
    : s_(std::move(setup)), geometry_(s_.header), areas_(s_.header.cluster_bits),
      refcounts_(*s_.file, s_.header, areas_, tables_in(s_.refcount_cache_bytes, s_.header)),
      l2_tables_(*s_.file, std::uint32_t(geometry_.cluster()), l2_cache_tables(s_.l2_cache_bytes, s_.header),
                 BlkdebugEvent::l2_load),
      places_(places_in(s_.header)) {}

Task<Result<void>> Store::load() {
    Header const& h = s_.header;
    areas_.clear();
    areas_.add(0, geometry_.cluster(), Area::header);
    areas_.add(h.refcount_table_offset, std::uint64_t(h.refcount_table_clusters) << h.cluster_bits,
               Area::refcount_table);
    areas_.add(h.l1_offset, std::uint64_t(h.l1_entries) * 8, Area::active_l1);
    if (h.crypto) areas_.add(h.crypto->offset, h.crypto->length, Area::encryption_header);
    CO_TRY(co_await refcounts_.load());
    std::vector<std::uint8_t> raw(std::size_t(h.l1_entries) * 8);
    if (!raw.empty()) {
        Bytes all(raw);
        Result<void> result = co_await read_bytes(file(), h.l1_offset, all);
        if (!result.ok()) co_return result.error().with_prefix("Could not read L1 table");
    }
    l1_.resize(h.l1_entries);
    for (std::size_t i = 0; i < l1_.size(); ++i) {
        l1_[i] = load_be64(raw.data() + i * 8);
        if (std::uint64_t l2 = l1_[i] & entry_offset_mask) areas_.add(l2, geometry_.cluster(), Area::active_l2);
    }
    l1_dirty_ = l1_moved_ = false;
    co_return Result<void>{};
}

// --- L1 and L2

TableRef Store::l2_cached(std::uint64_t guest) {
    std::uint64_t index = geometry_.l1_index(guest);
    if (index >= l1_.size()) return nullptr;
    std::uint64_t offset = l1_[index] & entry_offset_mask;
    return offset ? l2_tables_.find(offset) : nullptr;
}

Task<Result<TableRef>> Store::l2_for_read(std::uint64_t guest) {
    std::uint64_t index = geometry_.l1_index(guest);
    if (index >= l1_.size()) co_return TableRef();
    std::uint64_t offset = l1_[index] & entry_offset_mask;
    if (offset == 0) co_return TableRef();
    if (TableRef here = l2_tables_.find(offset)) co_return here;
    if (offset & geometry_.cluster_mask())
        co_return co_await corrupt(fmt::format("L2 table offset {:#x} unaligned (L1 index: {:#x})", offset, index));
    if (offset >= file().size_bytes()) // cut off: zeroes read there would pass for an empty table
        co_return co_await corrupt(
            fmt::format("L2 table offset {:#x} lies beyond the end of the file (L1 index: {:#x})", offset, index));
    Result<TableRef> table = co_await l2_tables_.load(offset);
    co_return table;
}

Task<Result<TableRef>> Store::l2_for_write(std::uint64_t guest) {
    std::uint64_t const index = geometry_.l1_index(guest);
    // A hostile entry may say "copied" without naming a table: then there is none.
    if (index < l1_.size() && (l1_[index] & entry_copied) && (l1_[index] & entry_offset_mask)) {
        Result<TableRef> table = co_await l2_for_read(guest);
        co_return table;
    }
    AsyncLock lock = co_await l2_mutex_.lock();
    VMM_ASSERT(index < l1_.size());
    CO_TRY_ASSIGN(TableRef old, co_await l2_for_read(guest));
    if (old && (l1_[index] & entry_copied)) co_return old; // somebody else was faster
    CO_TRY_ASSIGN(Extent extent, co_await refcounts_.allocate(1));
    TableRef table = l2_tables_.create(extent.offset);
    if (old) table->bytes = old->bytes;
    std::uint64_t old_offset = l1_[index] & entry_offset_mask;
    if (old) {
        areas_.remove(old_offset, geometry_.cluster(), Area::active_l2);
        release(old_offset, 1);
    }
    areas_.add(extent.offset, geometry_.cluster(), Area::active_l2);
    l1_[index] = extent.offset | entry_copied;
    l1_dirty_ = true;
    co_return table;
}

void Store::set_l2_entry(Table& table, std::uint64_t index, L2Entry entry) {
    std::size_t at = index * geometry_.l2_entry_bytes();
    store_be64(table.bytes.data() + at, entry.descriptor);
    if (geometry_.extended) store_be64(table.bytes.data() + at + 8, entry.bitmap);
    l2_tables_.mark_dirty(table, at, geometry_.l2_entry_bytes());
}

void Store::set_l1_entry(std::uint64_t index, std::uint64_t entry) {
    l1_[index] = entry;
    l1_dirty_ = true;
}

void Store::drop_l2(std::uint64_t index) {
    std::uint64_t offset = l1_[index] & entry_offset_mask;
    l1_[index] = 0;
    l1_dirty_ = true;
    l2_tables_.drop(offset);
    areas_.remove(offset, geometry_.cluster(), Area::active_l2);
    release(offset, 1);
}

Task<Result<void>> Store::grow_l1(std::uint64_t entries, bool exact) {
    AsyncLock lock = co_await l2_mutex_.lock();
    if (entries <= l1_.size()) co_return Result<void>{};
    if (entries > max_l1_bytes / 8)
        co_return Error(fmt::format("The L1 table would exceed its maximum of {} bytes", max_l1_bytes), EFBIG);
    std::uint64_t room = align_up<std::uint64_t>(std::uint64_t(l1_.size()) * 8, geometry_.cluster()) / 8;
    if (entries > room || s_.header.l1_offset == 0) {
        std::uint64_t wanted =
            std::min<std::uint64_t>(std::max(entries, std::uint64_t(l1_.size()) * 3 / 2), max_l1_bytes / 8);
        if (exact) wanted = entries;
        std::uint64_t clusters = div_ceil(wanted * 8, geometry_.cluster());
        CO_TRY_ASSIGN(Extent extent, co_await refcounts_.allocate_exact(clusters));
        std::uint64_t old_clusters = div_ceil<std::uint64_t>(std::uint64_t(l1_.size()) * 8, geometry_.cluster());
        areas_.remove(s_.header.l1_offset, old_clusters << geometry_.cluster_bits, Area::active_l1);
        if (old_clusters) release(s_.header.l1_offset, old_clusters);
        // The entries up to the end of the last cluster are ours: growing again needs no move.
        if (!exact) entries = std::min(clusters << geometry_.cluster_bits, max_l1_bytes) / 8;
        s_.header.l1_offset = extent.offset;
    } else {
        areas_.remove(s_.header.l1_offset, std::uint64_t(l1_.size()) * 8, Area::active_l1);
    }
    areas_.add(s_.header.l1_offset, entries * 8, Area::active_l1);
    l1_.resize(entries);
    s_.header.l1_entries = std::uint32_t(entries);
    l1_dirty_ = l1_moved_ = true;
    co_return Result<void>{};
}

Task<Result<void>> Store::adopt_refcounts(std::uint64_t table_offset, std::uint64_t table_clusters,
                                          std::vector<std::uint64_t> table) {
    CO_TRY(co_await file().flush());
    refcounts_.blocks().forget_all();
    s_.header.refcount_table_offset = table_offset;
    s_.header.refcount_table_clusters = std::uint32_t(table_clusters);
    places_ = places_in(s_.header);
    CO_TRY(co_await write_header());
    refcounts_.replace_table(std::move(table));
    areas_.clear();
    areas_.add(0, geometry_.cluster(), Area::header);
    areas_.add(table_offset, table_clusters << geometry_.cluster_bits, Area::refcount_table);
    areas_.add(s_.header.l1_offset, l1_.size() * 8, Area::active_l1);
    for (std::uint64_t entry : l1_)
        if (std::uint64_t l2 = entry & entry_offset_mask) areas_.add(l2, geometry_.cluster(), Area::active_l2);
    for (std::uint64_t block : refcounts_.table())
        if (block) areas_.add(block, geometry_.cluster(), Area::refcount_block);
    co_return Result<void>{};
}

// --- giving clusters back

void Store::release(std::uint64_t offset, std::uint64_t clusters) {
    if (!released_.empty() && released_.back().offset + (released_.back().clusters << geometry_.cluster_bits) == offset)
        released_.back().clusters += clusters;
    else
        released_.push_back({offset, clusters});
}

void Store::release_entry(L2Entry const& entry, bool external) {
    if (entry.compressed()) {
        CompressedExtent extent = compressed_extent(entry.descriptor, geometry_.cluster_bits);
        std::uint64_t first = extent.offset >> geometry_.cluster_bits;
        std::uint64_t last = (extent.offset + extent.length - 1) >> geometry_.cluster_bits;
        release(first << geometry_.cluster_bits, last - first + 1);
    } else if (entry.host() && !external) {
        release(entry.host(), 1);
    }
}

Task<Result<void>> Store::apply_released() {
    while (!waiting_.empty() && generations_.over(waiting_.front().generation)) {
        std::vector<Released> now = std::move(waiting_.front().what);
        waiting_.pop_front();
        for (Released const& r : now) {
            if (DebugEvents* debug = file().capabilities().debug) co_await debug->event(BlkdebugEvent::cluster_free);
            if (s_.discard) CO_TRY(co_await discard_in_file(r));
            Result<void> result = co_await refcounts_.change(r.offset, r.clusters, -1);
            if (!result.ok()) co_return co_await note_corruption(result.error());
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Store::discard_in_file(Released what) {
    // Shared clusters stay: only those this was the last reference to.
    for (std::uint64_t i = 0; i < what.clusters; ++i) {
        std::uint64_t offset = what.offset + (i << geometry_.cluster_bits);
        CO_TRY_ASSIGN(std::uint64_t count, co_await refcounts_.get(offset >> geometry_.cluster_bits));
        if (count != 1 || offset >= file().size_bytes()) continue;
        std::uint64_t length = std::min(geometry_.cluster(), file().size_bytes() - offset);
        Result<void> ignored = co_await block::discard(file(), offset, length); // a hint
        (void)ignored;
    }
    co_return Result<void>{};
}

// --- the file lies

Task<Error> Store::corrupt(std::string what) {
    if (!corrupt_) {
        s_.context.log.message("", fmt::format("qcow2: {}: '{}': {}; further corruption events will be suppressed",
                                               s_.writable ? "Marking image as corrupt" : "Image is corrupt",
                                               s_.filename, what));
        corrupt_ = true;
        if (s_.writable && s_.header.version >= 3) {
            s_.header.incompatible |= incompatible_corrupt;
            Result<void> ignored = co_await write_features(); // the error to tell is the one that led here
            (void)ignored;
        }
    }
    co_return Error(std::move(what), EIO);
}

Task<Error> Store::note_corruption(Error failure) {
    auto what = refcounts_.take_corruption();
    if (!what) co_return failure;
    Error marked = co_await corrupt(std::move(*what));
    co_return marked;
}

} // namespace vmm::block::qcow2
