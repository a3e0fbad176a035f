// Zeroes, discards and preallocation: changes of the mapping without data.
#include "block/formats/qcow2/clusters.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

Task<Result<void>> Clusters::zero_by_writing(std::uint64_t guest, std::uint64_t length) {
    constexpr std::size_t chunk = 1 << 20;
    std::vector<std::uint8_t> zeroes(std::min<std::uint64_t>(length, chunk));
    while (length > 0) {
        std::size_t n = std::min<std::uint64_t>(length, zeroes.size());
        IoVector part(ConstBytes(zeroes.data(), n));
        CO_TRY(co_await write(guest, part.const_spans()));
        guest += n;
        length -= n;
    }
    co_return Result<void>{};
}

Task<Result<void>> Clusters::write_zeroes(std::uint64_t guest, std::uint64_t length, ZeroFlags flags) {
    if (!store_.writable()) co_return Error("The image is corrupt and is not written to", EIO);
    std::uint64_t const unit = g_.subcluster(), end = guest + length;
    // The last cluster of a disk that ends inside one counts as whole: nothing lies behind it.
    std::uint64_t const whole_end = end == disk_size_ ? align_up(end, g_.cluster()) : align_down(end, unit);
    std::uint64_t const body = std::min(align_up(guest, unit), end);
    if (body > guest || whole_end <= body) {
        std::uint64_t const edge_end = whole_end <= body ? end : body;
        for (std::uint64_t at = guest; at < edge_end;) {
            CO_TRY_ASSIGN(Run run, co_await map(at, edge_end - at));
            bool zero = run.kind == Kind::zero || (run.kind == Kind::unallocated && at >= backed_bytes());
            if (!zero) {
                CO_TRY(co_await zero_by_writing(at, run.length));
            }
            at += run.length;
        }
        if (edge_end == end) co_return Result<void>{};
    }
    CO_TRY(co_await zero_clusters(body, whole_end, flags));
    if (end > whole_end) {
        CO_TRY_ASSIGN(Run run, co_await map(whole_end, end - whole_end));
        bool zero = run.kind == Kind::zero || (run.kind == Kind::unallocated && whole_end >= backed_bytes());
        if (!zero || run.length < end - whole_end) {
            CO_TRY(co_await zero_by_writing(whole_end, end - whole_end));
        }
    }
    co_return Result<void>{};
}

// [guest, end) is a whole number of subclusters.
Task<Result<void>> Clusters::zero_clusters(std::uint64_t guest, std::uint64_t end, ZeroFlags flags) {
    bool const old_version = store_.header().version < 3;
    if (store_.header().raw_external_data()) {
        std::uint64_t length = std::min(end, std::max(disk_size_, guest)) - guest;
        if (length > 0) {
            CO_TRY(co_await block::write_zeroes(n_.data, guest, length, flags));
        }
    }
    for (std::uint64_t at = guest; at < end;) {
        std::uint64_t const cluster = align_down(at, g_.cluster());
        std::uint64_t const part_end = std::min(end, cluster + g_.cluster());
        CO_TRY(co_await store_.relieve());
        RangeLocks::Hold hold = co_await allocating_.lock(cluster, g_.cluster());
        TableRef table = store_.l2_cached(at);
        if (!table) {
            CO_TRY_ASSIGN(table, co_await store_.l2_for_read(at));
        }
        if (!table && at >= backed_bytes()) { // no table, nothing below: zeroes up to where the table would end
            at = std::min(end, align_down(at, g_.l2_coverage()) + g_.l2_coverage());
            continue;
        }
        L2Entry old = table ? load_l2_entry(table->bytes.data(), g_.l2_index(at), g_.extended) : L2Entry{};
        bool const frees = flags.may_unmap && (old.compressed() || has_host_cluster(old, n_.external));
        if (reads_zero(old, at, part_end - at) && !(frees && part_end - at == g_.cluster())) {
            at = part_end;
            continue;
        }
        bool const whole = part_end - at == g_.cluster();
        bool const by_flag = old_version ? at >= backed_bytes() && whole : whole || !old.compressed();
        if (!by_flag) {
            hold.release();
            CO_TRY(co_await zero_by_writing(at, std::min(part_end, std::max(disk_size_, at + 1)) - at));
            at = part_end;
            continue;
        }
        Result<TableRef> loaded = co_await store_.l2_for_write(at);
        if (!loaded.ok()) co_return co_await store_.note_corruption(loaded.error());
        table = std::move(loaded).value();
        old = load_l2_entry(table->bytes.data(), g_.l2_index(at), g_.extended);
        zero_entry(*table, g_.l2_index(at), old, at - cluster, part_end - cluster, flags.may_unmap);
        at = part_end;
    }
    co_return Result<void>{};
}

// [from, to) of one cluster reads as zero from now on; offsets in the cluster.
void Clusters::zero_entry(Table& table, std::uint64_t index, L2Entry old, std::uint64_t from, std::uint64_t to,
                          bool unmap) {
    bool const whole = to - from == g_.cluster();
    L2Entry entry = old;
    if (!whole) {
        std::uint64_t lo = from >> g_.subcluster_bits(), hi = to >> g_.subcluster_bits();
        std::uint64_t bits = ((1ull << (hi - lo)) - 1) << lo;
        entry.bitmap = (old.bitmap & ~bits) | bits << 32;
        store_.set_l2_entry(table, index, entry);
        return;
    }
    bool const keep = has_host_cluster(old, n_.external) && old.copied() && (!unmap || n_.external);
    entry.descriptor = keep ? old.descriptor & (entry_offset_mask | entry_copied) : 0;
    entry.bitmap = g_.extended ? ~0ull << 32 : 0;
    if (!g_.extended && store_.header().version >= 3) entry.descriptor |= entry_zero;
    if (store_.header().version < 3) entry.descriptor = 0; // nothing below: unallocated reads as zero
    store_.set_l2_entry(table, index, entry);
    if (!keep || store_.header().version < 3) store_.release_entry(old, n_.external);
}

Task<Result<void>> Clusters::forget(std::uint64_t guest, std::uint64_t length) {
    if (!store_.writable()) co_return Error("The image is corrupt and is not written to", EIO);
    RangeLocks::Hold hold = co_await allocating_.lock(guest, length);
    // A table shared with a snapshot becomes ours: what it refers to then counts for us and can be given back.
    CO_TRY_ASSIGN(TableRef table, co_await store_.l2_for_write(guest));
    for (std::uint64_t at = guest; at < guest + length; at += g_.cluster()) {
        L2Entry const old = load_l2_entry(table->bytes.data(), g_.l2_index(at), g_.extended);
        if (old.empty()) continue;
        store_.set_l2_entry(*table, g_.l2_index(at), L2Entry{});
        store_.release_entry(old, n_.external);
    }
    co_return Result<void>{};
}

Task<Result<void>> Clusters::discard(std::uint64_t guest, std::uint64_t length) {
    if (!store_.writable()) co_return Error("The image is corrupt and is not written to", EIO);
    std::uint64_t end = guest + length;
    end = end == disk_size_ ? align_up(end, g_.cluster()) : align_down(end, g_.cluster());
    if (n_.external) co_return Result<void>{}; // its places are fixed: nothing to give back
    std::uint64_t const hides_to =
        !store_.header().backing_file.empty() && store_.header().version >= 3 ? disk_size_ : 0;
    for (std::uint64_t cluster = align_up(guest, g_.cluster()); cluster < end;) {
        CO_TRY(co_await store_.relieve());
        RangeLocks::Hold hold = co_await allocating_.lock(cluster, g_.cluster());
        TableRef table = store_.l2_cached(cluster);
        if (!table) {
            CO_TRY_ASSIGN(table, co_await store_.l2_for_read(cluster));
        }
        bool const below = !store_.header().backing_file.empty() && cluster < disk_size_;
        bool const hides = cluster < hides_to; // discarded is zero, also where only the backing file has data
        if (!table && !hides) {
            cluster = align_down(cluster, g_.l2_coverage()) + g_.l2_coverage();
            continue;
        }
        std::uint64_t const index = g_.l2_index(cluster);
        L2Entry old = table ? load_l2_entry(table->bytes.data(), index, g_.extended) : L2Entry{};
        bool const stored = old.compressed() || has_host_cluster(old, false);
        bool const shows = !stored && (g_.extended ? old.bitmap != ~0ull << 32 : !(old.descriptor & entry_zero));
        bool const possible =
            check_entry(old, cluster).ok() && ((stored && !(below && store_.header().version < 3)) || (hides && shows));
        if (possible) {
            Result<TableRef> loaded = co_await store_.l2_for_write(cluster);
            if (!loaded.ok()) co_return co_await store_.note_corruption(loaded.error());
            table = std::move(loaded).value();
            old = load_l2_entry(table->bytes.data(), index, g_.extended);
            L2Entry entry; // what was below must not show through
            if (below) entry = g_.extended ? L2Entry{0, ~0ull << 32} : L2Entry{entry_zero, 0};
            store_.set_l2_entry(*table, index, entry);
            store_.release_entry(old, false);
        }
        cluster += g_.cluster();
    }
    co_return Result<void>{};
}

Task<Result<void>> Clusters::preallocate(std::uint64_t guest, std::uint64_t length) {
    std::uint64_t const end = guest + length;
    for (std::uint64_t at = align_down(guest, g_.cluster()); at < end;) {
        CO_TRY(co_await store_.relieve());
        CO_TRY_ASSIGN(TableRef table, co_await store_.l2_for_write(at));
        std::uint64_t const index = g_.l2_index(at);
        std::uint64_t count = std::min(g_.l2_entries() - index, div_ceil(end - at, g_.cluster()));
        L2Entry const old = load_l2_entry(table->bytes.data(), index, g_.extended);
        if (!needs_new_cluster(old) || old.compressed() || has_host_cluster(old, n_.external)) {
            at += g_.cluster();
            continue;
        }
        CO_TRY_ASSIGN(Placement place, co_await this->place(at, count));
        for (std::uint64_t i = 0; i < place.clusters; ++i) {
            L2Entry have = load_l2_entry(table->bytes.data(), index + i, g_.extended);
            if (has_host_cluster(have, n_.external) || have.compressed()) {
                if (place.allocated) store_.release(place.host + (i << g_.cluster_bits), 1);
                continue;
            }
            std::uint64_t host = (place.host + (i << g_.cluster_bits)) | entry_copied;
            // Subclusters stay what they are: a backing file shows through those that hold nothing yet.
            L2Entry entry{host, have.bitmap};
            if (!g_.extended && !place.fresh && !n_.external && store_.header().version >= 3)
                entry.descriptor |= entry_zero; // its old content must not show
            store_.set_l2_entry(*table, index + i, entry);
        }
        at += place.clusters << g_.cluster_bits;
    }
    co_return Result<void>{};
}

Task<Result<void>> Clusters::expand_zeroes(std::uint64_t end,
                                           std::function<void(std::uint64_t, std::uint64_t)> progress) {
    for (std::uint64_t at = 0; at < end;) {
        CO_TRY_ASSIGN(Run run, co_await map(at, end - at));
        if (progress) progress(at, end);
        if (run.kind != Kind::zero) {
            at += run.length;
            continue;
        }
        CO_TRY(co_await store_.relieve());
        if (at < backed_bytes()) {
            std::uint64_t n = std::min(run.length, g_.cluster());
            CO_TRY(co_await zero_by_writing(at, n));
            at += n;
            continue;
        }
        CO_TRY_ASSIGN(TableRef table, co_await store_.l2_for_write(at));
        L2Entry old = load_l2_entry(table->bytes.data(), g_.l2_index(at), g_.extended);
        store_.set_l2_entry(*table, g_.l2_index(at), L2Entry{});
        store_.release_entry(old, n_.external);
        at += g_.cluster();
    }
    if (progress) progress(end, end);
    co_return Result<void>{};
}

} // namespace vmm::block::qcow2
