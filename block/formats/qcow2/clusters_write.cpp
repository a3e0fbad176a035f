// Writing guest data: in place where the cluster is ours alone, else into new clusters.
#include "block/core/debug_events.h"
#include "block/core/worker_pool.h"
#include "block/formats/qcow2/clusters.h"
#include "block/formats/qcow2/compress.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

Task<Error> Clusters::refuse_write(std::uint64_t host, std::uint64_t length) {
    auto area = store_.areas().conflict(host, length);
    Error marked = co_await store_.corrupt(
        fmt::format("Preventing invalid write on metadata (overlaps with {})", area ? area_name(*area) : "nothing"));
    co_return marked;
}

Task<Result<void>> Clusters::write(std::uint64_t guest, ConstIoSpans from) {
    if (!store_.writable()) co_return Error("The image is corrupt and is not written to", EIO);
    if (n_.cipher) {
        Result<void> result = co_await write_encrypted(guest, from);
        co_return result;
    }
    Result<void> result = co_await write_aligned(guest, from);
    co_return result;
}

// Sectors are encrypted whole: the ends of an unaligned request are read first, and nobody else may write them between.
Task<Result<void>> Clusters::write_encrypted(std::uint64_t guest, ConstIoSpans from) {
    constexpr std::uint64_t sector = SectorCipher::sector_bytes;
    std::uint64_t const length = from.size_bytes();
    if (length == 0) co_return Result<void>{};
    std::uint64_t const start = align_down(guest, sector), end = align_up(guest + length, sector);
    RangeLocks::Hold hold = co_await sectors_.lock(start, end - start);
    if (start == guest && end == guest + length) {
        Result<void> result = co_await write_aligned(guest, from);
        co_return result;
    }
    std::vector<std::uint8_t> head(guest - start), tail(end - guest - length);
    if (!head.empty()) {
        Bytes part(head);
        IoVector to(part);
        CO_TRY(co_await read(start, to.spans()));
    }
    if (!tail.empty()) {
        Bytes part(tail);
        IoVector to(part);
        CO_TRY(co_await read(guest + length, to.spans()));
    }
    IoVector whole;
    whole.append(ConstBytes(head));
    whole.append(IoVector::slice(from.parts, 0, length));
    whole.append(ConstBytes(tail));
    Result<void> result = co_await write_aligned(start, whole.const_spans());
    co_return result;
}

Task<Result<void>> Clusters::write_aligned(std::uint64_t guest, ConstIoSpans from) {
    GenerationGuard guard(store_.generations());
    std::uint64_t const length = from.size_bytes();
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t at = guest + done;
        Run run;
        if (TableRef table = store_.l2_cached(at)) {
            Result<Run> found = run_in(*table, at, length - done);
            if (!found.ok()) co_return co_await store_.corrupt(found.error().message());
            run = *found;
        }
        if (!run.writable) {
            CO_TRY_ASSIGN(std::uint64_t written, co_await write_allocating(at, from, done));
            done += written;
            continue;
        }
        if (!n_.external && store_.is_metadata(run.host, run.length))
            co_return co_await refuse_write(run.host, run.length);
        if (run.length == length) {
            Result<void> whole = co_await write_host(run.host, guest, from);
            co_return whole;
        }
        IoVector part = IoVector::slice(from.parts, done, run.length);
        CO_TRY(co_await write_host(run.host, at, part.const_spans()));
        done += run.length;
    }
    co_return Result<void>{};
}

Task<Result<void>> Clusters::write_host(std::uint64_t host, std::uint64_t guest, ConstIoSpans from) {
    if (n_.debug) co_await n_.debug->event(BlkdebugEvent::write_aio);
    if (!n_.cipher) {
        Result<void> result = co_await n_.data.write(host, from, Durability::cached);
        co_return result;
    }
    constexpr std::uint64_t chunk = 1 << 20;
    std::uint64_t const length = from.size_bytes();
    for (std::uint64_t done = 0; done < length;) {
        std::vector<std::uint8_t> bounce(std::min(length - done, chunk));
        Bytes all(bounce);
        copy_from_spans(from, done, all);
        std::uint64_t number = ((n_.cipher_by_host ? host : guest) + done) / SectorCipher::sector_bytes;
        auto work = [this, number, all] { return n_.cipher->encrypt(number, all); };
        bool ok;
        if (all.size() <= inline_cipher_bytes)
            ok = work();
        else
            ok = co_await on_pool(store_.context().pool, work);
        if (!ok) co_return Error("Encryption failed", EIO);
        ConstBytes encrypted = all;
        CO_TRY(co_await write_bytes(n_.data, host + done, encrypted));
        done += all.size();
    }
    co_return Result<void>{};
}

Task<Result<std::uint64_t>> Clusters::write_allocating(std::uint64_t guest, ConstIoSpans from, std::uint64_t skip) {
    CO_TRY(co_await store_.relieve());
    std::uint64_t const start = align_down(guest, g_.cluster());
    std::uint64_t const table_end = align_down(guest, g_.l2_coverage()) + g_.l2_coverage();
    std::uint64_t wanted_end = std::min(guest + from.size_bytes() - skip, table_end);
    RangeLocks::Hold hold = co_await allocating_.lock(start, align_up(wanted_end, g_.cluster()) - start);

    Result<TableRef> loaded = co_await store_.l2_for_write(guest);
    if (!loaded.ok()) co_return co_await store_.note_corruption(loaded.error());
    TableRef table = std::move(loaded).value();
    std::uint64_t const index = g_.l2_index(guest);
    L2Entry const first = load_l2_entry(table->bytes.data(), index, g_.extended);
    Result<Run> now = run_in(*table, guest, 1);
    if (!now.ok()) co_return co_await store_.corrupt(now.error().message());
    if (now->writable) co_return std::uint64_t(0);

    Placement at;
    if (!needs_new_cluster(first)) { // ours already, under zeroes or unallocated subclusters
        at = Placement{first.host(), 1, false, false};
        if (!n_.external && store_.is_metadata(at.host, g_.cluster()))
            co_return co_await refuse_write(at.host, g_.cluster());
        wanted_end = std::min(wanted_end, next_data(first, guest));
    } else {
        std::uint64_t const last = g_.l2_index(wanted_end - 1);
        std::uint64_t count = 1;
        while (index + count <= last) {
            L2Entry next = load_l2_entry(table->bytes.data(), index + count, g_.extended);
            if (!needs_new_cluster(next) || !check_entry(next, start + (count << g_.cluster_bits)).ok()) break;
            ++count;
        }
        Result<Placement> placed = co_await place(start, count);
        if (!placed.ok()) co_return co_await store_.note_corruption(placed.error());
        at = *placed;
    }
    std::uint64_t const end = std::min(wanted_end, start + (at.clusters << g_.cluster_bits));
    Result<void> written = co_await write_placed(at, table, guest, from, skip, end - guest);
    if (!written.ok()) {
        if (at.allocated) {
            Result<void> ignored = co_await store_.refcounts().change(at.host, at.clusters, -1); // at worst a leak
            (void)ignored;
        }
        co_return written.error();
    }
    co_return end - guest;
}

// Where in `guest`'s cluster the first subcluster with data of its own begins, behind the one of `guest`. Others write
// there without waiting for us: nothing of it may be read to be written again.
std::uint64_t Clusters::next_data(L2Entry const& entry, std::uint64_t guest) const {
    std::uint64_t const end = align_down(guest, g_.cluster()) + g_.cluster();
    std::uint64_t at = align_down(guest, g_.subcluster()) + g_.subcluster();
    while (at < end &&
           kind_of(entry, unsigned((at & g_.cluster_mask()) >> g_.subcluster_bits()), g_, n_.external) != Kind::data)
        at += g_.subcluster();
    return at;
}

Task<Result<Clusters::Placement>> Clusters::place(std::uint64_t start, std::uint64_t clusters) {
    if (n_.external) co_return Placement{start, clusters, false, false};
    if (n_.debug) co_await n_.debug->event(BlkdebugEvent::cluster_alloc);
    Extent extent;
    if (auto quick = store_.refcounts().try_allocate(clusters)) {
        extent = *quick;
    } else {
        CO_TRY_ASSIGN(extent, co_await store_.refcounts().allocate(clusters));
    }
    co_return Placement{extent.offset, extent.clusters,
                        extent.fresh && store_.header().crypt_method == CryptMethod::none, true};
}

// The old content of `bytes.size()` guest bytes that a write must carry over; nothing when the new cluster already
// reads as it.
Task<Result<void>> Clusters::fill(std::uint64_t guest, L2Entry old, bool fresh, std::vector<std::uint8_t>& bytes) {
    if (bytes.empty()) co_return Result<void>{};
    if (reads_zero(old, guest, bytes.size())) {
        if (fresh) bytes.clear();
        co_return Result<void>{};
    }
    if (n_.debug) co_await n_.debug->event(BlkdebugEvent::cow_read);
    Bytes all(bytes);
    IoVector to(all);
    Result<void> result = co_await read(guest, to.spans());
    co_return result;
}

Task<Result<void>> Clusters::write_placed(Placement at, TableRef table, std::uint64_t guest, ConstIoSpans from,
                                          std::uint64_t skip, std::uint64_t length) {
    std::uint64_t const end = guest + length;
    std::uint64_t const first_cluster = align_down(guest, g_.cluster()),
                        last_cluster = align_down(end - 1, g_.cluster());
    L2Entry const first = load_l2_entry(table->bytes.data(), g_.l2_index(guest), g_.extended);
    L2Entry const last = load_l2_entry(table->bytes.data(), g_.l2_index(end - 1), g_.extended);
    // A cluster that moves takes all it holds along; otherwise whole subclusters are enough.
    auto moves = [&](L2Entry const& e) {
        return !g_.extended || e.compressed() || (at.allocated && e.allocated_bits());
    };
    std::uint64_t const from_guest = moves(first) ? first_cluster : align_down(guest, g_.subcluster());
    std::uint64_t const to_guest = moves(last) ? last_cluster + g_.cluster() : align_up(end, g_.subcluster());
    std::vector<std::uint8_t> head(guest - from_guest), tail(to_guest - end);
    CO_TRY(co_await fill(from_guest, first, at.fresh, head));
    CO_TRY(co_await fill(end, last, at.fresh, tail));

    std::uint64_t const start = guest - head.size(); // what fresh clusters need not be told is left out
    if (head.empty() && tail.empty() && skip == 0 && length == from.size_bytes()) {
        CO_TRY(co_await write_host(at.host + (start - first_cluster), start, from));
    } else {
        if (n_.debug && !(head.empty() && tail.empty())) co_await n_.debug->event(BlkdebugEvent::cow_write);
        IoVector whole;
        if (!head.empty()) whole.append(ConstBytes(head));
        whole.append(IoVector::slice(from.parts, skip, length));
        if (!tail.empty()) whole.append(ConstBytes(tail));
        CO_TRY(co_await write_host(at.host + (start - first_cluster), start, whole.const_spans()));
    }
    if (n_.debug) co_await n_.debug->event(BlkdebugEvent::l2_update);
    link(*table, at, first_cluster, from_guest, to_guest);
    co_return Result<void>{};
}

// Lets the L2 entries from `guest` on name the clusters just written; [from, to) is what they hold now.
void Clusters::link(Table& table, Placement const& at, std::uint64_t guest, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t cluster = guest; cluster < to; cluster += g_.cluster()) {
        std::uint64_t index = g_.l2_index(cluster);
        L2Entry const old = load_l2_entry(table.bytes.data(), index, g_.extended);
        L2Entry entry{(at.host + (cluster - guest)) | entry_copied, old.compressed() ? 0 : old.bitmap};
        if (g_.extended) {
            std::uint64_t lo = (std::max(from, cluster) - cluster) >> g_.subcluster_bits();
            std::uint64_t hi = (std::min(to, cluster + g_.cluster()) - cluster) >> g_.subcluster_bits();
            std::uint64_t bits = ((1ull << (hi - lo)) - 1) << lo;
            entry.bitmap = (entry.bitmap | bits) & ~(bits << 32);
        }
        store_.set_l2_entry(table, index, entry);
        if (at.allocated) store_.release_entry(old, n_.external);
    }
}

// --- compressed clusters

Task<Result<void>> Clusters::write_compressed(std::uint64_t guest, ConstIoSpans from) {
    std::uint64_t const length = from.size_bytes();
    if (length == 0) co_return Result<void>{};
    if (n_.external || n_.cipher)
        co_return Error("Compression is not possible with an external data file or encryption", ENOTSUP);
    if ((guest & g_.cluster_mask()) || length > g_.cluster() || (length < g_.cluster() && guest + length != disk_size_))
        co_return Error("A compressed write must be one whole cluster", EINVAL);
    std::vector<std::uint8_t> cluster(g_.cluster()), compressed;
    copy_from_spans(from, 0, Bytes(cluster).first(length));
    auto work = [this, &cluster] { return compressor_.compress(cluster); };
    compressed = co_await on_pool(store_.context().pool, work);
    bool stored = false;
    if (!compressed.empty()) {
        CO_TRY(co_await store_compressed(guest, compressed, stored));
    }
    if (stored) co_return Result<void>{};
    Result<void> plain = co_await write(guest, from);
    co_return plain;
}

Task<Result<void>> Clusters::store_compressed(std::uint64_t guest, std::vector<std::uint8_t> const& compressed,
                                              bool& stored) {
    if (!store_.writable()) co_return Error("The image is corrupt and is not written to", EIO);
    CO_TRY(co_await store_.relieve());
    GenerationGuard guard(store_.generations());
    RangeLocks::Hold hold = co_await allocating_.lock(guest, g_.cluster());
    Result<TableRef> loaded = co_await store_.l2_for_write(guest);
    if (!loaded.ok()) co_return co_await store_.note_corruption(loaded.error());
    TableRef table = std::move(loaded).value();
    std::uint64_t const index = g_.l2_index(guest);
    L2Entry const old = load_l2_entry(table->bytes.data(), index, g_.extended);
    if (!old.empty() && has_host_cluster(old, false))
        co_return Result<void>{}; // has a cluster already: written plainly
    Result<std::uint64_t> place = co_await store_.refcounts().allocate_bytes(compressed.size());
    if (!place.ok()) co_return co_await store_.note_corruption(place.error());
    CompressedExtent extent =
        compressed_extent(compressed_entry(*place, compressed.size(), g_.cluster_bits), g_.cluster_bits);
    L2Entry const entry{compressed_entry(*place, compressed.size(), g_.cluster_bits), 0};
    Result<void> result;
    if (extent.offset + extent.length > max_compressed_offset(g_.cluster_bits))
        result = Error("The image file is too large for another compressed cluster", EFBIG);
    else if (store_.is_metadata(extent.offset, extent.length))
        result = co_await refuse_write(extent.offset, extent.length);
    else
        result = co_await write_compressed_bytes(*place, compressed);
    if (!result.ok()) {
        store_.release_entry(entry, false);
        co_return result;
    }
    if (n_.debug) co_await n_.debug->event(BlkdebugEvent::l2_update_compressed);
    store_.set_l2_entry(*table, index, entry);
    store_.release_entry(old, false);
    stored = true;
    co_return Result<void>{};
}

Task<Result<void>> Clusters::write_compressed_bytes(std::uint64_t host, ConstBytes bytes) {
    if (n_.debug) co_await n_.debug->event(BlkdebugEvent::write_compressed);
    Result<void> result = co_await write_bytes(n_.data, host, bytes);
    co_return result;
}

} // namespace vmm::block::qcow2
