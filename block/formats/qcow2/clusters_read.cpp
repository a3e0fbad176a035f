// Mapping and reading of guest data.
#include "block/core/chain.h"
#include "block/core/debug_events.h"
#include "block/core/worker_pool.h"
#include "block/formats/qcow2/clusters.h"
#include "block/formats/qcow2/compress.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

// An entry that cannot be: nothing it says is to be used.
Result<void> Clusters::check_entry(L2Entry const& e, std::uint64_t guest) const {
    if (e.compressed()) {
        if (n_.external)
            return error("Compressed cluster entry found in image with external data file (guest offset {:#x})", guest);
        return {};
    }
    if (e.host() & g_.cluster_mask())
        return error("Cluster allocation offset {:#x} unaligned (guest offset: {:#x})", e.host(), guest);
    if (n_.external && has_host_cluster(e, true) && e.host() != align_down(guest, g_.cluster()))
        return error("External data file host cluster offset {:#x} does not match guest cluster offset {:#x}", e.host(),
                     align_down(guest, g_.cluster()));
    if (!g_.extended) {
        if ((e.descriptor & entry_zero) && store_.header().version < 3)
            return error("Zero cluster entry found in pre-v3 image (guest offset: {:#x})", guest);
        return {};
    }
    if (e.allocated_bits() & e.zero_bits())
        return error("Subclusters are both allocated and zero (bitmap {:#x}, guest offset: {:#x})", e.bitmap, guest);
    if (e.allocated_bits() && !has_host_cluster(e, n_.external))
        return error("Subclusters are allocated without a cluster (bitmap {:#x}, guest offset: {:#x})", e.bitmap,
                     guest);
    return {};
}

Result<Run> Clusters::run_in(Table const& table, std::uint64_t guest, std::uint64_t length) const {
    length = std::min(length, g_.l2_coverage() - (guest & (g_.l2_coverage() - 1)));
    Run run;
    std::uint64_t at = guest;
    std::uint64_t const end = guest + length;
    L2Entry entry;
    bool loaded = false;
    while (at < end) {
        std::uint64_t in_cluster = at & g_.cluster_mask();
        if (!loaded || in_cluster == 0) {
            entry = load_l2_entry(table.bytes.data(), g_.l2_index(at), g_.extended);
            TRY(check_entry(entry, at));
            loaded = true;
        }
        unsigned sub = unsigned(in_cluster >> g_.subcluster_bits());
        Kind kind = kind_of(entry, sub, g_, n_.external);
        std::uint64_t host = entry.host() + in_cluster;
        bool has_host = has_host_cluster(entry, n_.external);
        bool writable = kind == Kind::data && entry.copied();
        if (at == guest) {
            run = Run{kind, 0, host, has_host, writable, entry.descriptor};
        } else if (kind != run.kind || kind == Kind::compressed || writable != run.writable ||
                   has_host != run.has_host || (has_host && host != run.host + (at - guest))) {
            break;
        }
        at += kind == Kind::compressed ? g_.cluster() - in_cluster
                                       : g_.subcluster() - (in_cluster & (g_.subcluster() - 1));
    }
    run.length = std::min(at, end) - guest;
    return run;
}

Task<Result<Run>> Clusters::map(std::uint64_t guest, std::uint64_t length) {
    TableRef table = store_.l2_cached(guest);
    if (!table) {
        CO_TRY_ASSIGN(table, co_await store_.l2_for_read(guest));
    }
    if (!table) {
        Run run;
        run.length = std::min(length, g_.l2_coverage() - (guest & (g_.l2_coverage() - 1)));
        co_return run;
    }
    Result<Run> run = run_in(*table, guest, length);
    if (!run.ok()) co_return co_await store_.corrupt(run.error().message());
    co_return *run;
}

std::uint64_t Clusters::backed_bytes() const {
    Image* backing = n_.image.backing();
    return backing ? std::min(backing->size_bytes(), disk_size_) : 0;
}

bool Clusters::reads_zero(L2Entry const& e, std::uint64_t guest, std::uint64_t length) const {
    if (length == 0) return true;
    for (std::uint64_t at = guest; at < guest + length; at = align_down(at, g_.subcluster()) + g_.subcluster()) {
        Kind kind = kind_of(e, unsigned((at & g_.cluster_mask()) >> g_.subcluster_bits()), g_, n_.external);
        if (kind != Kind::zero && !(kind == Kind::unallocated && at >= backed_bytes())) return false;
    }
    return true;
}

Task<Result<void>> Clusters::read(std::uint64_t guest, IoSpans to) {
    GenerationGuard guard(store_.generations());
    std::uint64_t const length = to.size_bytes();
    for (std::uint64_t done = 0; done < length;) {
        CO_TRY_ASSIGN(Run run, co_await map(guest + done, length - done));
        if (run.length == length) {
            Result<void> whole = co_await read_run(run, guest, to);
            co_return whole;
        }
        IoVector part = IoVector::slice(to.parts, done, run.length);
        CO_TRY(co_await read_run(run, guest + done, part.spans()));
        done += run.length;
    }
    co_return Result<void>{};
}

Task<Result<void>> Clusters::read_run(Run run, std::uint64_t guest, IoSpans to) {
    switch (run.kind) {
    case Kind::zero: return read_zeroes(to);
    case Kind::unallocated: return read_unallocated(guest, to);
    case Kind::compressed: return read_compressed(run, guest, to);
    case Kind::data: break;
    }
    if (n_.cipher) return read_encrypted(run, guest, to);
    if (n_.debug) return read_watched(run, to);
    return n_.data.read(run.host, to);
}

Task<Result<void>> Clusters::read_zeroes(IoSpans to) {
    zero_spans(to, 0, to.size_bytes());
    co_return Result<void>{};
}

Task<Result<void>> Clusters::read_watched(Run run, IoSpans to) {
    co_await n_.debug->event(BlkdebugEvent::read_aio);
    Result<void> result = co_await n_.data.read(run.host, to);
    co_return result;
}

Task<Result<void>> Clusters::read_unallocated(std::uint64_t guest, IoSpans to) {
    std::uint64_t length = to.size_bytes();
    std::uint64_t backed = guest < backed_bytes() ? std::min(length, backed_bytes() - guest) : 0;
    if (backed > 0) {
        if (n_.debug) co_await n_.debug->event(BlkdebugEvent::read_backing_aio);
        IoVector part = IoVector::slice(to.parts, 0, backed);
        CO_TRY(co_await read_backing(n_.image.backing(), guest, part.spans()));
    }
    zero_spans(to, backed, length - backed);
    co_return Result<void>{};
}

Task<Result<void>> Clusters::read_encrypted(Run run, std::uint64_t guest, IoSpans to) {
    constexpr std::uint64_t sector = SectorCipher::sector_bytes, chunk = 1 << 20;
    std::uint64_t const length = to.size_bytes();
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t head = (guest + done) & (sector - 1);
        std::uint64_t n = std::min(length - done, chunk - head);
        std::vector<std::uint8_t> bounce(align_up(head + n, sector));
        Bytes all(bounce);
        CO_TRY(co_await read_bytes(n_.data, run.host + done - head, all));
        std::uint64_t number = ((n_.cipher_by_host ? run.host : guest) + done) / sector;
        auto work = [this, number, all] { return n_.cipher->decrypt(number, all); };
        bool ok;
        if (all.size() <= inline_cipher_bytes)
            ok = work();
        else
            ok = co_await on_pool(store_.context().pool, work);
        if (!ok) co_return Error("Decryption failed", EIO);
        copy_to_spans(to, done, all.subspan(head, n));
        done += n;
    }
    co_return Result<void>{};
}

Task<Result<void>> Clusters::read_compressed(Run run, std::uint64_t guest, IoSpans to) {
    if (n_.debug) co_await n_.debug->event(BlkdebugEvent::read_compressed);
    CompressedExtent extent = compressed_extent(run.descriptor, g_.cluster_bits);
    std::uint64_t const file_bytes = n_.data.size_bytes();
    if (extent.offset >= file_bytes)
        co_return co_await store_.corrupt(fmt::format(
            "Compressed cluster at {:#x} lies beyond the end of the file (guest offset: {:#x})", extent.offset, guest));
    std::vector<std::uint8_t> stored(std::min(extent.length, file_bytes - extent.offset));
    std::vector<std::uint8_t> cluster(g_.cluster());
    Bytes stored_bytes(stored), cluster_bytes(cluster);
    CO_TRY(co_await read_bytes(n_.data, extent.offset, stored_bytes));
    auto work = [type = store_.header().compression, stored_bytes, cluster_bytes] {
        return decompress_cluster(type, stored_bytes, cluster_bytes);
    };
    bool ok = co_await on_pool(store_.context().pool, work);
    if (!ok)
        co_return Error(
            fmt::format("The compressed cluster at guest offset {:#x} is damaged", align_down(guest, g_.cluster())),
            EIO);
    copy_to_spans(to, 0, cluster_bytes.subspan(guest & g_.cluster_mask(), to.size_bytes()));
    co_return Result<void>{};
}

} // namespace vmm::block::qcow2
