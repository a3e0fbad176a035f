#include "block/formats/qcow2/check.h"

#include "block/formats/qcow2/refcount_layout.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

namespace vmm::block::qcow2 {

void Checker::corruption(std::string text) {
    ++report_.corruptions;
    message_(text);
}

void Checker::reference(std::uint64_t offset, std::uint64_t bytes) {
    if (bytes == 0) return;
    if (offset >= file_end_ || bytes > file_end_ - offset) {
        corruption(fmt::format("ERROR: counting reference for region exceeding the end of the file by one cluster or "
                               "more: offset {:#x} size {:#x}",
                               offset, bytes));
        return;
    }
    for (std::uint64_t c = offset >> g_.cluster_bits; c <= (offset + bytes - 1) >> g_.cluster_bits; ++c)
        references_.add(c);
    report_.image_end_offset = std::max(report_.image_end_offset, align_up(offset + bytes, g_.cluster()));
}

Task<Result<CheckReport>> Checker::run() {
    Header const& h = store_.header();
    file_end_ = align_up(store_.file().size_bytes(), g_.cluster());
    report_.total_clusters = div_ceil(h.size_bytes, g_.cluster());
    reference(0, 1);
    CO_TRY(co_await walk_l1(store_.l1(), h.l1_offset, true));
    if (h.snapshot_count) reference(h.snapshots_offset, snapshots_.table_bytes());
    for (StoredSnapshot const& s : snapshots_.all()) {
        std::vector<std::uint8_t> raw(s.l1_bytes());
        Bytes all(raw);
        if (!raw.empty()) {
            CO_TRY(co_await read_bytes(store_.file(), s.l1_offset, all));
        }
        std::vector<std::uint64_t> l1(s.l1_entries);
        for (std::size_t i = 0; i < l1.size(); ++i) l1[i] = load_be64(raw.data() + i * 8);
        CO_TRY(co_await walk_l1(l1, s.l1_offset, false));
    }
    if (h.crypto) reference(h.crypto->offset, h.crypto->length);
    for (Extent const& extent : others_) reference(extent.offset, extent.clusters << g_.cluster_bits);
    CO_TRY(co_await walk_refcounts());
    bool untrusted = broken_blocks_ != 0;
    if (repair_ != RepairMode::none && !untrusted) {
        CO_TRY_ASSIGN(untrusted, co_await counts_call_used_clusters_free());
    }
    if (untrusted && repair_ == RepairMode::leaks) { // what looks like a leak may be in use
        CO_TRY(co_await compare_counts(RepairMode::none));
        message_("ERROR need to rebuild refcount structures");
        co_return Error(std::strerror(EIO), EIO);
    }
    if (untrusted && fixes_errors()) {
        CO_TRY(co_await start_over());
    } else {
        // First what is wrong, then what is done about it.
        std::uint64_t const corruptions = report_.corruptions, leaks = report_.leaks;
        CO_TRY(co_await compare_counts(RepairMode::none));
        if (repair_ != RepairMode::none && (report_.corruptions || report_.leaks)) {
            report_.corruptions = corruptions;
            report_.leaks = leaks;
            wrong_counts_ = 0;
            CO_TRY(co_await compare_counts(repair_));
        }
    }
    CO_TRY(co_await check_copied_flags());
    if (repair_ != RepairMode::none) {
        CO_TRY(co_await store_.settle());
    }
    if (fixes_errors() && report_.corruptions == 0 && report_.check_errors == 0 &&
        (h.incompatible & (incompatible_dirty | incompatible_corrupt))) {
        store_.header().incompatible &= ~(incompatible_dirty | incompatible_corrupt);
        CO_TRY(co_await store_.write_features());
    }
    co_return report_;
}

// --- what refers to clusters

Task<Result<void>> Checker::walk_l1(std::vector<std::uint64_t> const& l1, std::uint64_t offset, bool active) {
    reference(offset, l1.size() * 8);
    for (std::uint64_t i = 0; i < l1.size(); ++i) {
        if (l1[i] & l1_reserved) {
            corruption(fmt::format("ERROR found L1 entry with reserved bits set: {:x}", l1[i]));
        }
        std::uint64_t l2 = l1[i] & entry_offset_mask;
        if (!l2) continue;
        if (l2 & g_.cluster_mask()) {
            corruption(fmt::format("ERROR l2_offset={:x}: Table is not cluster aligned; L1 entry corrupted", l2));
            continue;
        }
        reference(l2, g_.cluster());
        if (l2 >= file_end_) continue;
        CO_TRY(co_await walk_l2(l2, active));
    }
    co_return Result<void>{};
}

Task<Result<void>> Checker::walk_l2(std::uint64_t offset, bool active) {
    Result<TableRef> table = co_await store_.l2_tables().load(offset);
    if (!table.ok()) {
        ++report_.check_errors;
        message_(fmt::format("ERROR: I/O error in check_refcounts_l2: {}", table.error().message()));
        co_return Result<void>{};
    }
    std::uint64_t next_contiguous = 0;
    for (std::uint64_t i = 0; i < g_.l2_entries(); ++i)
        walk_entry(**table, i, load_l2_entry((*table)->bytes.data(), i, g_.extended), active, next_contiguous);
    if (repair_ != RepairMode::none) co_return co_await store_.relieve();
    co_return Result<void>{};
}

void Checker::walk_entry(Table& table, std::uint64_t index, L2Entry e, bool active, std::uint64_t& next_contiguous) {
    if (e.empty()) return;
    if (e.compressed()) {
        if (e.copied()) {
            message_(fmt::format("ERROR: coffset={:#x}: copied flag must never be set for compressed clusters",
                                 compressed_extent(e.descriptor, g_.cluster_bits).offset));
            ++report_.corruptions;
        }
        if (store_.header().external_data()) return corruption("ERROR compressed cluster with data file");
        CompressedExtent extent = compressed_extent(e.descriptor, g_.cluster_bits);
        reference(extent.offset, extent.length);
        if (!active) return;
        ++report_.allocated_clusters;
        ++report_.compressed_clusters;
        ++report_.fragmented_clusters; // by nature
        return;
    }
    if (e.descriptor & l2_reserved)
        corruption(fmt::format("ERROR found l2 entry with reserved bits set: {:x}", e.descriptor));
    bool const external = store_.header().external_data();
    bool const placed = has_host_cluster(e, external);
    bool const has_data = g_.extended ? e.allocated_bits() != 0 : !(e.descriptor & entry_zero) && placed;
    if (active && placed) {
        ++report_.allocated_clusters;
        if (next_contiguous && e.host() != next_contiguous) ++report_.fragmented_clusters;
        next_contiguous = e.host() + g_.cluster();
    }
    if (e.host() & g_.cluster_mask()) {
        bool const fix = fixes_errors() && active && !has_data; // data is not thrown away
        std::string text = fmt::format("offset={:x}: {} cluster is not properly aligned; L2 entry corrupted.", e.host(),
                                       has_data ? "Data" : "Preallocated");
        if (!fix) {
            corruption("ERROR " + text);
            if (!external) reference(e.host(), g_.cluster());
            return;
        }
        message_("Repairing " + text);
        L2Entry entry = g_.extended ? L2Entry{0, ~0ull << 32} : L2Entry{entry_zero, 0};
        store_.set_l2_entry(table, index, store_.header().version >= 3 ? entry : L2Entry{});
        ++report_.corruptions_fixed;
        return;
    }
    if (g_.extended && (e.allocated_bits() & e.zero_bits()))
        corruption(fmt::format("ERROR offset={:x}: subclusters are both allocated and zero (bitmap {:x})", e.host(),
                               e.bitmap));
    if (e.host() && !external) reference(e.host(), g_.cluster());
}

// --- the refcounts themselves

Task<Result<void>> Checker::walk_refcounts() {
    Header const& h = store_.header();
    reference(h.refcount_table_offset, std::uint64_t(h.refcount_table_clusters) << g_.cluster_bits);
    std::vector<std::uint64_t> const table = store_.refcounts().table();
    for (std::uint64_t i = 0; i < table.size(); ++i) {
        if (!table[i]) continue;
        if (table[i] & (g_.cluster_mask() | refcount_table_reserved)) {
            corruption(
                fmt::format("ERROR refcount block {} is not cluster aligned; refcount table entry corrupted", i));
            ++broken_blocks_;
            continue;
        }
        if (table[i] >= file_end_) {
            corruption(fmt::format("{} refcount block {} is outside image", fixes_errors() ? "Repairing" : "ERROR", i));
            ++broken_blocks_;
            continue;
        }
        references_.add(table[i] >> g_.cluster_bits);
        report_.image_end_offset = std::max(report_.image_end_offset, table[i] + g_.cluster());
        if (references_.get(table[i] >> g_.cluster_bits) != 1) {
            corruption(
                fmt::format("ERROR refcount block {} refcount={}", i, references_.get(table[i] >> g_.cluster_bits)));
            ++broken_blocks_;
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Checker::compare_one(std::uint64_t cluster, std::uint64_t count, RepairMode repair) {
    std::uint64_t const found = references_.get(cluster);
    if (found == count) co_return Result<void>{};
    bool const leak = count > found;
    bool const fix = leak ? repair != RepairMode::none : repair == RepairMode::all;
    message_(fmt::format("{} cluster {} refcount={} reference={}",
                         fix    ? "Repairing"
                         : leak ? "Leaked"
                                : "ERROR",
                         cluster, count, found));
    if (!fix) {
        ++(leak ? report_.leaks : report_.corruptions);
        if (!leak) ++wrong_counts_;
        co_return Result<void>{};
    }
    CO_TRY(co_await store_.refcounts().set(cluster, found));
    ++(leak ? report_.leaks_fixed : report_.corruptions_fixed);
    co_return Result<void>{};
}

Task<Result<bool>> Checker::counts_call_used_clusters_free() {
    for (auto const& [number, chunk] : references_.chunks())
        for (std::uint64_t k = 0; k < ReferenceMap::chunk_clusters; ++k) {
            if ((*chunk)[k] == 0) continue;
            Result<std::uint64_t> count = co_await store_.refcounts().get(number * ReferenceMap::chunk_clusters + k);
            if (count.ok() && *count == 0) co_return true; // a count that cannot be read is told with the others
        }
    co_return false;
}

Task<Result<void>> Checker::start_over() {
    CO_TRY(co_await compare_counts(RepairMode::none)); // tells what the new counts put right
    CO_TRY(co_await rebuild());
    report_.leaks_fixed += std::exchange(report_.leaks, 0);
    co_return Result<void>{};
}

Task<Result<void>> Checker::compare_counts(RepairMode repair) {
    std::uint64_t const entries = g_.refcount_entries();
    std::set<std::uint64_t> blocks;
    std::vector<std::uint64_t> const table = store_.refcounts().table();
    for (std::uint64_t i = 0; i < table.size(); ++i)
        if (table[i] && !(table[i] & g_.cluster_mask()) && table[i] < file_end_) blocks.insert(i);
    for (auto const& [number, chunk] : references_.chunks())
        for (std::uint64_t c = number * ReferenceMap::chunk_clusters; c < (number + 1) * ReferenceMap::chunk_clusters;
             c += std::min(entries, ReferenceMap::chunk_clusters))
            blocks.insert(c / entries);
    for (std::uint64_t i : blocks) {
        bool const present = i < table.size() && table[i] && !(table[i] & g_.cluster_mask()) && table[i] < file_end_;
        TableRef block;
        if (present) {
            Result<TableRef> loaded = co_await store_.refcounts().blocks().load(table[i]);
            if (!loaded.ok()) {
                ++report_.check_errors;
                message_(fmt::format("ERROR: could not read refcount block {}: {}", i, loaded.error().message()));
                continue;
            }
            block = *loaded;
        }
        for (std::uint64_t k = 0; k < entries; ++k) {
            if (i * entries + k >= file_end_ >> g_.cluster_bits) break; // nothing is there to be used or wasted
            std::uint64_t count = block ? load_refcount(block->bytes.data(), k, g_.refcount_order) : 0;
            if (count == 0 && references_.get(i * entries + k) == 0) continue;
            if (count)
                report_.image_end_offset = std::max(report_.image_end_offset, (i * entries + k + 1) << g_.cluster_bits);
            CO_TRY(co_await compare_one(i * entries + k, count, repair));
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Checker::check_copied_flags() {
    if (store_.header().external_data()) co_return Result<void>{};
    // Counts as they are, or as they would be: an image that is not repaired is judged by what is in the file. Where
    // nothing else is wrong the counts can be trusted, and setting the flags is safe.
    bool const fix = fixes_errors() || (repair_ == RepairMode::leaks && report_.corruptions == 0 &&
                                        report_.leaks == 0 && report_.check_errors == 0);
    auto flag_error = [&](std::string_view what, std::uint64_t entry, std::uint64_t count) {
        message_(fmt::format("{} OFLAG_COPIED {}={:x} refcount={}", fix ? "Repairing" : "ERROR", what, entry, count));
        ++(fix ? report_.corruptions_fixed : report_.corruptions);
        return fix;
    };
    for (std::uint64_t i = 0; i < store_.l1().size(); ++i) {
        std::uint64_t const l1_entry = store_.l1()[i], offset = l1_entry & entry_offset_mask;
        if (!offset || (offset & g_.cluster_mask()) || offset >= file_end_) continue;
        Result<std::uint64_t> l2_count = co_await store_.refcounts().get(offset >> g_.cluster_bits);
        if (!l2_count.ok()) continue; // reported with the refcounts
        if ((*l2_count == 1) != ((l1_entry & entry_copied) != 0) &&
            flag_error(fmt::format("L2 cluster: l1_index={} l1_entry", i), l1_entry, *l2_count))
            store_.set_l1_entry(i, offset | (*l2_count == 1 ? entry_copied : 0));
        Result<TableRef> table = co_await store_.l2_tables().load(offset);
        if (!table.ok()) continue;
        for (std::uint64_t k = 0; k < g_.l2_entries(); ++k) {
            L2Entry e = load_l2_entry((*table)->bytes.data(), k, g_.extended);
            if (e.compressed() || !e.host() || (e.host() & g_.cluster_mask())) continue;
            Result<std::uint64_t> count = co_await store_.refcounts().get(e.host() >> g_.cluster_bits);
            if (!count.ok() || (*count == 1) == e.copied()) continue;
            if (!flag_error("data cluster: l2_entry", e.descriptor, *count)) continue;
            e.descriptor = (e.descriptor & ~entry_copied) | (*count == 1 ? entry_copied : 0);
            store_.set_l2_entry(**table, k, e);
        }
    }
    co_return Result<void>{};
}

// --- starting over

Task<Result<void>> Checker::rebuild() {
    message_("Rebuilding refcount structure");
    std::uint64_t const entries = g_.refcount_entries();
    // References without those of the old refcount structure are what counts.
    Header& h = store_.header();
    ReferenceMap old = std::exchange(references_, {});
    std::map<std::uint64_t, std::uint64_t> own;
    for (std::uint64_t c = 0; c < h.refcount_table_clusters; ++c)
        ++own[(h.refcount_table_offset >> g_.cluster_bits) + c];
    for (std::uint64_t block : store_.refcounts().table())
        if (block && !(block & g_.cluster_mask()) && block < file_end_) ++own[block >> g_.cluster_bits];
    std::map<std::uint64_t, std::uint64_t> counts; // cluster -> references
    for (auto const& [number, chunk] : old.chunks())
        for (std::uint64_t k = 0; k < ReferenceMap::chunk_clusters; ++k) {
            std::uint64_t c = number * ReferenceMap::chunk_clusters + k, value = (*chunk)[k];
            auto mine = own.find(c);
            if (mine != own.end()) value -= std::min(value, mine->second);
            if (value > g_.max_refcount())
                co_return Error("The reference counts of this image are too narrow for its clusters", EINVAL);
            if (value) counts[c] = value;
        }
    std::uint64_t start = counts.empty() ? 1 : counts.rbegin()->first + 1;
    start = std::max(start, file_end_ >> g_.cluster_bits); // nothing old is overwritten
    std::set<std::uint64_t> blocks;
    for (auto const& [c, value] : counts) blocks.insert(c / entries);
    CO_TRY_ASSIGN(RefcountLayout layout, lay_out_refcounts(g_, start, blocks));
    // The tables of an image that was cut off lie behind its end.
    while (store_.areas().used_by(start << g_.cluster_bits, (layout.end() - start) << g_.cluster_bits)) {
        start = layout.end();
        CO_TRY_ASSIGN(layout, lay_out_refcounts(g_, start, blocks));
    }
    for (std::uint64_t c = start; c < layout.end(); ++c) counts[c] = 1;
    FillCounts fill = [&](std::uint64_t i, Bytes block) -> Task<Result<void>> {
        for (auto at = counts.lower_bound(i * entries); at != counts.end() && at->first < (i + 1) * entries; ++at)
            store_refcount(block.data(), at->first - i * entries, g_.refcount_order, at->second);
        co_return Result<void>{};
    };
    CO_TRY_ASSIGN(std::vector<std::uint64_t> table, co_await write_refcounts(store_.file(), g_, layout, fill));
    CO_TRY(co_await store_.adopt_refcounts(start << g_.cluster_bits, layout.table_clusters, std::move(table)));
    for (auto const& [c, value] : counts)
        for (std::uint64_t n = 0; n < value && n < 2; ++n) references_.add(c);
    report_.corruptions -= broken_blocks_ + wrong_counts_;
    report_.corruptions_fixed += broken_blocks_ + wrong_counts_;
    co_return Result<void>{};
}

} // namespace vmm::block::qcow2
