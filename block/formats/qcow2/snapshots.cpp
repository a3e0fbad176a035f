#include "block/formats/qcow2/snapshots.h"

#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace vmm::block::qcow2 {

namespace {

struct RawSnapshot {
    be64 l1_offset;
    be32 l1_entries;
    be16 id_bytes, name_bytes;
    be32 date_seconds, date_nanoseconds;
    be64 vm_clock_nanoseconds;
    be32 vm_state_bytes, extra_bytes;
};
static_assert(sizeof(RawSnapshot) == 40);
struct RawExtra {
    be64 vm_state_bytes, disk_bytes, icount;
};
constexpr std::size_t extra_with_icount = 24, extra_with_disk_size = 16;
constexpr std::uint64_t no_icount = ~0ull;

template <class T> Bytes bytes_of(T& value) { return {reinterpret_cast<std::uint8_t*>(&value), sizeof value}; }

void append(std::vector<std::uint8_t>& out, void const* from, std::size_t bytes) {
    auto const* data = static_cast<std::uint8_t const*>(from);
    out.insert(out.end(), data, data + bytes);
}

std::vector<std::uint8_t> serialize(std::vector<StoredSnapshot> const& snapshots) {
    std::vector<std::uint8_t> out;
    for (StoredSnapshot const& s : snapshots) {
        RawSnapshot raw{};
        raw.l1_offset = s.l1_offset;
        raw.l1_entries = s.l1_entries;
        raw.id_bytes = std::uint16_t(s.info.id.size());
        raw.name_bytes = std::uint16_t(s.info.name.size());
        raw.date_seconds = std::uint32_t(s.info.date_seconds);
        raw.date_nanoseconds = s.info.date_nanoseconds;
        raw.vm_clock_nanoseconds = s.info.vm_clock_nanoseconds;
        raw.vm_state_bytes = std::uint32_t(std::min<std::uint64_t>(s.info.vm_state_size_bytes, UINT32_MAX));
        raw.extra_bytes = std::uint32_t(sizeof(RawExtra) + s.unknown_extra.size());
        RawExtra extra{s.info.vm_state_size_bytes, s.info.disk_size_bytes, s.info.icount.value_or(no_icount)};
        append(out, &raw, sizeof raw);
        append(out, &extra, sizeof extra);
        append(out, s.unknown_extra.data(), s.unknown_extra.size());
        append(out, s.info.id.data(), s.info.id.size());
        append(out, s.info.name.data(), s.info.name.size());
        out.resize(align_up<std::size_t>(out.size(), 8));
    }
    return out;
}

} // namespace

// --- the directory

Task<Result<std::uint64_t>> SnapshotTable::load_one(std::uint64_t offset) {
    RawSnapshot raw{};
    CO_TRY(co_await read_bytes(store_.file(), offset, bytes_of(raw)));
    if (raw.extra_bytes > max_snapshot_extra_bytes)
        co_return error("Snapshot {}: too much extra data ({} bytes)", snapshots_.size(),
                        std::uint32_t(raw.extra_bytes));
    if (store_.header().version >= 3 && raw.extra_bytes < extra_with_disk_size)
        co_return error("Snapshot {}: extra data of {} bytes is too short", snapshots_.size(),
                        std::uint32_t(raw.extra_bytes));
    std::uint64_t const rest = std::uint64_t(raw.extra_bytes) + raw.id_bytes + raw.name_bytes;
    std::vector<std::uint8_t> data(rest);
    Bytes all(data);
    CO_TRY(co_await read_bytes(store_.file(), offset + sizeof raw, all));
    StoredSnapshot s;
    s.l1_offset = raw.l1_offset;
    s.l1_entries = raw.l1_entries;
    if (s.l1_bytes() > max_l1_bytes)
        co_return error("Snapshot {}: L1 table too large ({} entries)", snapshots_.size(), s.l1_entries);
    if ((s.l1_offset & g_.cluster_mask()) || s.l1_offset > max_host_offset)
        co_return error("Snapshot {}: L1 table offset {:#x} invalid", snapshots_.size(), s.l1_offset);
    RawExtra extra{raw.vm_state_bytes.load(), store_.header().size_bytes, no_icount};
    std::memcpy(&extra, data.data(), std::min<std::size_t>(sizeof extra, raw.extra_bytes));
    if (raw.extra_bytes < 8) extra.vm_state_bytes = raw.vm_state_bytes.load();
    if (raw.extra_bytes > sizeof extra)
        s.unknown_extra.assign(data.begin() + sizeof extra, data.begin() + raw.extra_bytes);
    auto const* text = reinterpret_cast<char const*>(data.data()) + raw.extra_bytes;
    s.info.id.assign(text, raw.id_bytes);
    s.info.name.assign(text + raw.id_bytes, raw.name_bytes);
    s.info.vm_state_size_bytes = extra.vm_state_bytes;
    s.info.disk_size_bytes = extra.disk_bytes;
    if (s.info.disk_size_bytes > std::uint64_t(INT64_MAX) ||
        g_.l1_entries_for(s.info.disk_size_bytes) > max_l1_bytes / 8)
        co_return error("Snapshot {}: disk size {} is too large", snapshots_.size(), s.info.disk_size_bytes);
    if (extra.icount != no_icount) s.info.icount = std::uint64_t(extra.icount);
    s.info.date_seconds = raw.date_seconds;
    s.info.date_nanoseconds = raw.date_nanoseconds;
    s.info.vm_clock_nanoseconds = raw.vm_clock_nanoseconds;
    snapshots_.push_back(std::move(s));
    co_return align_up<std::uint64_t>(sizeof raw + rest, 8);
}

Task<Result<void>> SnapshotTable::load() {
    snapshots_.clear();
    table_bytes_ = 0;
    std::uint64_t const offset = store_.header().snapshots_offset;
    for (std::uint32_t i = 0; i < store_.header().snapshot_count; ++i) {
        Result<std::uint64_t> taken = co_await load_one(offset + table_bytes_);
        if (!taken.ok()) co_return taken.error().with_prefix("Could not read snapshots");
        table_bytes_ += *taken;
        if (table_bytes_ > max_snapshot_table_bytes)
            co_return error("Snapshot table too large: more than {} bytes", max_snapshot_table_bytes);
    }
    store_.areas().add(offset, table_bytes_, Area::snapshot_table);
    for (StoredSnapshot const& s : snapshots_) store_.areas().add(s.l1_offset, s.l1_bytes(), Area::inactive_l1);
    Result<void> noted = co_await note_inactive_l2();
    co_return noted;
}

Task<Result<void>> SnapshotTable::note_inactive_l2() {
    if (!store_.areas().checks(Area::inactive_l2)) co_return Result<void>{};
    std::vector<std::uint64_t> tables;
    for (StoredSnapshot const& s : snapshots_) {
        CO_TRY_ASSIGN(std::vector<std::uint64_t> l1, co_await read_l1(s));
        std::ranges::copy_if(l1, std::back_inserter(tables), [](std::uint64_t entry) { return entry != 0; });
    }
    store_.areas().set_inactive_l2(tables);
    co_return Result<void>{};
}

StoredSnapshot const* SnapshotTable::find(std::string const& name_or_id) const {
    for (StoredSnapshot const& s : snapshots_)
        if (s.info.id == name_or_id) return &s;
    for (StoredSnapshot const& s : snapshots_)
        if (s.info.name == name_or_id) return &s;
    return nullptr;
}

std::string SnapshotTable::next_id() const {
    std::uint64_t highest = 0;
    for (StoredSnapshot const& s : snapshots_) {
        std::uint64_t id = 0;
        std::from_chars(s.info.id.data(), s.info.id.data() + s.info.id.size(), id);
        highest = std::max(highest, id);
    }
    return std::to_string(highest + 1);
}

// Writes the table to a new place and lets the header name it: the step that makes a change of the directory real.
Task<Result<void>> SnapshotTable::write_table(std::vector<StoredSnapshot> snapshots) {
    std::vector<std::uint8_t> raw = serialize(snapshots);
    if (raw.size() > max_snapshot_table_bytes || snapshots.size() > max_snapshots)
        co_return Error("The image has no room for another snapshot", EFBIG);
    Header& h = store_.header();
    std::uint64_t const old_offset = h.snapshots_offset, old_bytes = table_bytes_;
    std::uint64_t offset = 0;
    if (!raw.empty()) {
        CO_TRY_ASSIGN(Extent extent,
                      co_await store_.refcounts().allocate_exact(div_ceil<std::uint64_t>(raw.size(), g_.cluster())));
        offset = extent.offset;
        ConstBytes all(raw);
        CO_TRY(co_await write_bytes(store_.file(), offset, all));
    }
    CO_TRY(co_await store_.commit());
    h.snapshots_offset = offset;
    h.snapshot_count = std::uint32_t(snapshots.size());
    CO_TRY(co_await store_.write_header());
    store_.areas().remove(old_offset, old_bytes, Area::snapshot_table);
    store_.areas().add(offset, raw.size(), Area::snapshot_table);
    if (old_bytes) store_.release(old_offset, div_ceil(old_bytes, g_.cluster()));
    table_bytes_ = raw.size();
    snapshots_ = std::move(snapshots);
    Result<void> noted = co_await note_inactive_l2();
    co_return noted;
}

Task<Result<std::vector<std::uint64_t>>> SnapshotTable::read_l1(StoredSnapshot const& snapshot) {
    std::vector<std::uint8_t> raw(snapshot.l1_bytes());
    Bytes all(raw);
    if (!raw.empty()) {
        CO_TRY(co_await read_bytes(store_.file(), snapshot.l1_offset, all));
    }
    std::vector<std::uint64_t> l1(snapshot.l1_entries);
    for (std::size_t i = 0; i < l1.size(); ++i) {
        l1[i] = load_be64(raw.data() + i * 8) & entry_offset_mask;
        if (l1[i] & g_.cluster_mask())
            co_return co_await store_.corrupt(fmt::format(
                "L2 table offset {:#x} unaligned (snapshot '{}', L1 index: {:#x})", l1[i], snapshot.info.id, i));
    }
    co_return l1;
}

// --- counting

Task<Result<void>> SnapshotTable::count_l2(Table const& table, int delta) {
    for (std::uint64_t i = 0; i < g_.l2_entries(); ++i) {
        L2Entry e = load_l2_entry(table.bytes.data(), i, g_.extended);
        std::uint64_t offset = e.host(), clusters = offset ? 1 : 0;
        if (e.compressed()) {
            CompressedExtent extent = compressed_extent(e.descriptor, g_.cluster_bits);
            offset = align_down(extent.offset, g_.cluster());
            clusters = div_ceil(extent.offset + extent.length - offset, g_.cluster());
        } else if (offset & g_.cluster_mask()) {
            co_return co_await store_.corrupt(
                fmt::format("Cluster allocation offset {:#x} unaligned (L2 offset: {:#x}, L2 index: {:#x})", offset,
                            table.offset, i));
        }
        Result<void> changed = co_await store_.refcounts().change(offset, clusters, delta);
        if (!changed.ok()) co_return co_await store_.note_corruption(changed.error());
    }
    co_return Result<void>{};
}

Task<Result<void>> SnapshotTable::count_tree(std::vector<std::uint64_t> const& l1, int delta) {
    for (std::uint64_t entry : l1) {
        std::uint64_t offset = entry & entry_offset_mask;
        if (!offset) continue;
        CO_TRY(co_await store_.relieve());
        CO_TRY_ASSIGN(TableRef table, co_await store_.l2_tables().load(offset));
        CO_TRY(co_await count_l2(*table, delta));
        Result<void> changed = co_await store_.refcounts().change(offset, 1, delta);
        if (!changed.ok()) co_return co_await store_.note_corruption(changed.error());
        if (delta > 0) continue;
        CO_TRY_ASSIGN(std::uint64_t left, co_await store_.refcounts().get(offset >> g_.cluster_bits));
        if (left == 0) store_.l2_tables().drop(offset);
    }
    co_return Result<void>{};
}

// Narrow refcounts may be unable to count another user: found out before anything is changed.
Task<Result<void>> SnapshotTable::check_room(std::vector<std::uint64_t> const& l1) {
    if (g_.refcount_order > 4) co_return Result<void>{};
    for (std::uint64_t entry : l1) {
        std::uint64_t l2_offset = entry & entry_offset_mask;
        if (!l2_offset) continue;
        CO_TRY_ASSIGN(TableRef table, co_await store_.l2_tables().load(l2_offset));
        for (std::uint64_t i = 0; i <= g_.l2_entries(); ++i) {
            L2Entry e;
            if (i < g_.l2_entries())
                e = load_l2_entry(table->bytes.data(), i, g_.extended);
            else
                e.descriptor = l2_offset;
            std::uint64_t offset = e.compressed() ? compressed_extent(e.descriptor, g_.cluster_bits).offset : e.host();
            if (!offset) continue;
            CO_TRY_ASSIGN(std::uint64_t count, co_await store_.refcounts().get(offset >> g_.cluster_bits));
            // Compressed clusters share theirs: each of its users may add one.
            if (count >= g_.max_refcount() || (e.compressed() && count > g_.max_refcount() / 2))
                co_return Error(
                    fmt::format("The reference counts of this image ({} bits) cannot count another snapshot",
                                1u << g_.refcount_order),
                    EINVAL);
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> SnapshotTable::clear_copied_flags() {
    for (std::uint64_t i = 0; i < store_.l1().size(); ++i) {
        std::uint64_t offset = store_.l1()[i] & entry_offset_mask;
        if (!offset) continue;
        CO_TRY(co_await store_.relieve());
        CO_TRY_ASSIGN(TableRef table, co_await store_.l2_tables().load(offset));
        for (std::uint64_t k = 0; k < g_.l2_entries(); ++k) {
            L2Entry e = load_l2_entry(table->bytes.data(), k, g_.extended);
            if (!e.copied() || e.compressed()) continue;
            e.descriptor &= ~entry_copied;
            store_.set_l2_entry(*table, k, e);
        }
        store_.set_l1_entry(i, offset);
    }
    co_return Result<void>{};
}

Task<Result<void>> SnapshotTable::renew_copied_flags() {
    for (std::uint64_t i = 0; i < store_.l1().size(); ++i) {
        std::uint64_t offset = store_.l1()[i] & entry_offset_mask;
        if (!offset) continue;
        CO_TRY(co_await store_.relieve());
        CO_TRY_ASSIGN(std::uint64_t l2_count, co_await store_.refcounts().get(offset >> g_.cluster_bits));
        std::uint64_t wanted = offset | (l2_count == 1 ? entry_copied : 0);
        if (store_.l1()[i] != wanted) store_.set_l1_entry(i, wanted);
        CO_TRY_ASSIGN(TableRef table, co_await store_.l2_tables().load(offset));
        for (std::uint64_t k = 0; k < g_.l2_entries(); ++k) {
            L2Entry e = load_l2_entry(table->bytes.data(), k, g_.extended);
            if (e.compressed() || !e.host()) continue;
            CO_TRY_ASSIGN(std::uint64_t count, co_await store_.refcounts().get(e.host() >> g_.cluster_bits));
            std::uint64_t descriptor = (e.descriptor & ~entry_copied) | (count == 1 ? entry_copied : 0);
            if (descriptor == e.descriptor) continue;
            e.descriptor = descriptor;
            store_.set_l2_entry(*table, k, e);
        }
    }
    Result<void> result = co_await store_.settle();
    co_return result;
}

// --- making, applying, removing

Task<Result<void>> SnapshotTable::create(SnapshotRequest request, std::uint64_t disk_size) {
    if (snapshots_.size() >= max_snapshots) co_return Error("The image has no room for another snapshot", EFBIG);
    if (request.name.size() > UINT16_MAX) co_return Error("The snapshot's name is too long", EINVAL);
    CO_TRY(co_await store_.settle());
    CO_TRY(co_await check_room(store_.l1()));
    StoredSnapshot s;
    s.info = SnapshotInfo{next_id(),
                          request.name,
                          request.vm_state_size_bytes,
                          disk_size,
                          request.date_seconds,
                          request.date_nanoseconds,
                          request.vm_clock_nanoseconds,
                          request.icount};
    std::vector<std::uint64_t> l1(store_.l1().begin(), store_.l1().end());
    for (std::uint64_t& entry : l1) entry &= entry_offset_mask;
    std::vector<std::uint8_t> raw(l1.size() * 8);
    for (std::size_t i = 0; i < l1.size(); ++i) store_be64(raw.data() + i * 8, l1[i]);
    s.l1_entries = std::uint32_t(l1.size());
    // Clusters counted twice must no longer look like ours alone, before the directory makes them shared.
    CO_TRY(co_await count_tree(l1, +1));
    CO_TRY(co_await clear_copied_flags());
    if (!raw.empty()) {
        CO_TRY_ASSIGN(Extent extent,
                      co_await store_.refcounts().allocate_exact(div_ceil<std::uint64_t>(raw.size(), g_.cluster())));
        s.l1_offset = extent.offset;
        ConstBytes all(raw);
        CO_TRY(co_await write_bytes(store_.file(), s.l1_offset, all));
    }
    std::vector<StoredSnapshot> now = snapshots_;
    now.push_back(s);
    CO_TRY(co_await write_table(now));
    store_.areas().add(s.l1_offset, s.l1_bytes(), Area::inactive_l1);
    Result<void> result = co_await store_.settle();
    co_return result;
}

Task<Result<void>> SnapshotTable::apply(StoredSnapshot s) {
    CO_TRY(co_await store_.settle());
    CO_TRY_ASSIGN(std::vector<std::uint64_t> l1, co_await read_l1(s));
    CO_TRY(co_await store_.grow_l1(l1.size()));
    std::vector<std::uint64_t> old = store_.l1();
    l1.resize(old.size());
    CO_TRY(co_await count_tree(l1, +1));
    for (std::uint64_t entry : old) store_.areas().remove(entry & entry_offset_mask, g_.cluster(), Area::active_l2);
    for (std::uint64_t entry : l1)
        if (entry) store_.areas().add(entry, g_.cluster(), Area::active_l2);
    store_.replace_l1(l1);
    CO_TRY(co_await store_.commit());
    CO_TRY(co_await count_tree(old, -1));
    Result<void> result = co_await renew_copied_flags();
    co_return result;
}

Task<Result<void>> SnapshotTable::remove(StoredSnapshot s) {
    CO_TRY(co_await store_.settle());
    CO_TRY_ASSIGN(std::vector<std::uint64_t> l1, co_await read_l1(s));
    std::vector<StoredSnapshot> now;
    for (StoredSnapshot const& other : snapshots_)
        if (other.info.id != s.info.id || other.l1_offset != s.l1_offset) now.push_back(other);
    CO_TRY(co_await write_table(now));
    store_.areas().remove(s.l1_offset, s.l1_bytes(), Area::inactive_l1);
    CO_TRY(co_await count_tree(l1, -1));
    if (s.l1_bytes()) store_.release(s.l1_offset, div_ceil(s.l1_bytes(), g_.cluster()));
    Result<void> result = co_await renew_copied_flags();
    co_return result;
}

} // namespace vmm::block::qcow2
