#include "block/formats/qcow2/refcounts.h"

#include "vmm/base/checked.h"

#include <algorithm>

namespace vmm::block::qcow2 {

Refcounts::Refcounts(BlockDevice& file, Header& header, AreaMap& areas, std::size_t max_blocks)
    : file_(file), header_(header), geometry_(header), areas_(areas), debug_(file.capabilities().debug),
      blocks_(file, std::uint32_t(geometry_.cluster()), max_blocks, BlkdebugEvent::refblock_load) {
    fresh_from_ = file.limits().growable ? div_ceil(file.size_bytes(), geometry_.cluster()) : ~0ull;
}

Error Refcounts::corrupt(std::string what) {
    corruption_ = what;
    return Error(std::move(what), EIO);
}

Task<Result<void>> Refcounts::load() {
    std::size_t entries = (std::uint64_t(header_.refcount_table_clusters) << g().cluster_bits) / 8;
    std::vector<std::uint8_t> raw(entries * 8);
    Bytes all(raw);
    if (debug_) co_await debug_->event(BlkdebugEvent::reftable_load);
    Result<void> result = co_await read_bytes(file_, header_.refcount_table_offset, all);
    if (!result.ok()) co_return result.error().with_prefix("Could not read the reference count table");
    table_.resize(entries);
    for (std::size_t i = 0; i < entries; ++i) table_[i] = load_be64(raw.data() + i * 8);
    while (!table_.empty() && table_.back() == 0) table_.pop_back(); // what the disk has room for is in the header
    for (std::uint64_t entry : table_)
        if (entry && !(entry & refcount_table_reserved)) areas_.add(entry, g().cluster(), Area::refcount_block);
    co_return Result<void>{};
}

void Refcounts::replace_table(std::vector<std::uint64_t> table) {
    table_ = std::move(table);
    table_dirty_ = table_moved_ = false;
    current_ = nullptr;
    next_free_ = 0;
    fresh_from_ = file_.limits().growable ? div_ceil(file_.size_bytes(), g().cluster()) : ~0ull;
}

void Refcounts::replace_structure(std::vector<std::uint64_t> table, unsigned order) {
    geometry_.refcount_order = order;
    replace_table(std::move(table));
}

Task<Result<TableRef>> Refcounts::block_of(std::uint64_t cluster) {
    std::uint64_t index = cluster / g().refcount_entries();
    if (index >= table_.size() || table_[index] == 0) co_return TableRef();
    std::uint64_t offset = table_[index];
    if (offset & (g().cluster_mask() | refcount_table_reserved))
        co_return corrupt(fmt::format("Refblock offset {:#x} unaligned (reftable index: {:#x})", offset, index));
    if (TableRef here = blocks_.find(offset)) co_return here;
    Result<TableRef> block = co_await blocks_.load(offset);
    co_return block;
}

Task<Result<std::uint64_t>> Refcounts::get(std::uint64_t cluster) {
    CO_TRY_ASSIGN(TableRef block, co_await block_of(cluster));
    if (!block) co_return std::uint64_t(0);
    co_return load_refcount(block->bytes.data(), cluster % g().refcount_entries(), g().refcount_order);
}

void Refcounts::put(Table& block, std::uint64_t index, std::uint64_t value) {
    store_refcount(block.bytes.data(), index, g().refcount_order, value);
    blocks_.mark_dirty(block, std::size_t((index << g().refcount_order) / 8),
                       std::max<std::size_t>((1u << g().refcount_order) / 8, 1));
}

Task<Result<void>> Refcounts::change(std::uint64_t offset, std::uint64_t count, int delta) {
    std::uint64_t const first = offset >> g().cluster_bits;
    for (std::uint64_t cluster = first; cluster < first + count; ++cluster) {
        CO_TRY_ASSIGN(TableRef block, co_await block_of(cluster));
        std::uint64_t index = cluster % g().refcount_entries();
        std::uint64_t value = block ? load_refcount(block->bytes.data(), index, g().refcount_order) : 0;
        if (value == 0)
            co_return corrupt(
                fmt::format("Cluster at {:#x} is in use, but its refcount is 0", cluster << g().cluster_bits));
        if (delta > 0 && value == g().max_refcount())
            co_return Error(fmt::format("The reference count of the cluster at {:#x} would exceed its maximum of {} "
                                        "(refcount_bits={})",
                                        cluster << g().cluster_bits, value, 1u << g().refcount_order),
                            EINVAL);
        value += delta > 0 ? 1 : std::uint64_t(-1);
        put(*block, index, value);
        if (value == 0 && bytes_next_ >> g().cluster_bits == cluster) bytes_next_ = 0;
        if (value == 0 && cluster < next_free_) {
            next_free_ = cluster;
            current_ = nullptr;
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Refcounts::set(std::uint64_t cluster, std::uint64_t value) {
    AsyncLock lock = co_await alloc_mutex_.lock();
    CO_TRY_ASSIGN(TableRef block, co_await open_block(cluster / g().refcount_entries()));
    put(*block, cluster % g().refcount_entries(), value);
    if (value == 0 && cluster < next_free_) {
        next_free_ = cluster;
        current_ = nullptr;
    }
    lock.unlock();
    Result<void> grown = co_await grow_table();
    co_return grown;
}

Extent Refcounts::take_extent(std::uint64_t cluster, std::uint64_t count) {
    Extent extent{cluster << g().cluster_bits, count, cluster >= fresh_from_};
    if (fresh_from_ != ~0ull) fresh_from_ = std::max(fresh_from_, cluster + count);
    return extent;
}

// A cluster that is to be used for something new must not be known as metadata, whatever its refcount says.
Result<void> Refcounts::claim_new(std::uint64_t cluster, std::string_view what) {
    auto area = areas_.used_by(cluster << g().cluster_bits, g().cluster());
    if (!area) return {};
    return corrupt(fmt::format("Preventing invalid allocation of {} at offset {:#x} (it is used by: {})", what,
                               cluster << g().cluster_bits, area_name(*area)));
}

std::optional<Extent> Refcounts::try_allocate(std::uint64_t wanted) {
    if (alloc_mutex_.locked() || debug_ || outgrown()) return std::nullopt;
    return take_free(wanted);
}

std::optional<Extent> Refcounts::take_free(std::uint64_t wanted) {
    if (!current_) return std::nullopt;
    std::uint64_t const entries = g().refcount_entries(), base = current_index_ * entries;
    std::uint8_t const* counts = current_->bytes.data();
    auto is_free = [&](std::uint64_t i) { return load_refcount(counts, i, g().refcount_order) == 0; };
    std::uint64_t at = next_free_ - base;
    while (at < entries && !is_free(at)) ++at;
    std::uint64_t const first = at;
    bool const fresh = base + first >= fresh_from_;
    for (; at < entries && at - first < wanted && is_free(at) && (base + at >= fresh_from_) == fresh; ++at)
        if (!claim_new(base + at, "a cluster").ok()) return std::nullopt;
    next_free_ = base + at;
    for (std::uint64_t i = first; i < at; ++i) put(*current_, i, 1);
    if (at == entries) current_ = nullptr; // the next allocation goes on behind this block
    if (first == at) return std::nullopt;
    return take_extent(base + first, at - first);
}

Result<void> Refcounts::extend_table_to(std::uint64_t entries) {
    if (entries > max_refcount_table_bytes / 8)
        return Error(
            fmt::format("The image file cannot grow any further: its reference count table would exceed {} bytes",
                        max_refcount_table_bytes),
            EFBIG);
    if (table_.size() < entries) table_.resize(entries);
    return {};
}

Task<Result<TableRef>> Refcounts::open_block(std::uint64_t index) {
    CO_TRY(extend_table_to(index + 1));
    std::uint64_t const base = index * g().refcount_entries();
    if (table_[index]) {
        Result<TableRef> block = co_await block_of(base);
        co_return block;
    }
    // Nothing in its range is in use yet, so the block itself can have the first cluster of it.
    std::uint64_t cluster = std::max(base, next_free_);
    if (cluster >= base + g().refcount_entries()) cluster = base;
    CO_TRY(claim_new(cluster, "refcount block"));
    Extent extent = take_extent(cluster, 1);
    TableRef block = blocks_.create(extent.offset);
    put(*block, cluster - base, 1);
    areas_.add(extent.offset, g().cluster(), Area::refcount_block);
    table_[index] = extent.offset;
    table_dirty_ = true;
    co_return block;
}

Task<Result<Extent>> Refcounts::allocate(std::uint64_t wanted) {
    AsyncLock lock = co_await alloc_mutex_.lock();
    if (debug_) co_await debug_->event(BlkdebugEvent::refblock_alloc);
    for (;;) {
        if (auto extent = take_free(wanted)) {
            lock.unlock();
            CO_TRY(co_await grow_table());
            co_return *extent;
        }
        if (corruption_) co_return Error(*corruption_, EIO);
        std::uint64_t index = next_free_ / g().refcount_entries();
        if (index << g().cluster_bits >= max_host_offset)
            co_return Error("The image file cannot grow any further", EFBIG);
        CO_TRY_ASSIGN(TableRef block, co_await open_block(index));
        if (next_free_ / g().refcount_entries() != index) continue; // something before it was freed meanwhile
        current_ = block;
        current_index_ = index;
    }
}

Task<Result<std::uint64_t>> Refcounts::first_unused_cluster() {
    for (std::uint64_t index = table_.size(); index-- > 0;) {
        if (!table_[index]) continue;
        std::uint64_t base = index * g().refcount_entries();
        CO_TRY_ASSIGN(TableRef block, co_await block_of(base));
        for (std::uint64_t i = g().refcount_entries(); i-- > 0;)
            if (load_refcount(block->bytes.data(), i, g().refcount_order)) co_return base + i + 1;
    }
    co_return std::uint64_t(0);
}

Task<Result<Extent>> Refcounts::allocate_exact_locked(std::uint64_t count) {
    CO_TRY_ASSIGN(std::uint64_t start, co_await first_unused_cluster());
    // The run and the missing refcount blocks that describe it, and those that describe these.
    std::uint64_t const entries = g().refcount_entries();
    std::uint64_t missing = 0;
    for (;;) {
        std::uint64_t now = 0;
        for (std::uint64_t i = start / entries; i <= (start + count + missing - 1) / entries; ++i)
            now += i >= table_.size() || table_[i] == 0;
        if (now == missing) break;
        missing = std::max(missing + 1, now);
    }
    std::uint64_t const end = start + count + missing;
    CO_TRY(extend_table_to((end - 1) / entries + 1));
    for (std::uint64_t cluster = start; cluster < end; ++cluster) CO_TRY(claim_new(cluster, "a table"));
    std::uint64_t next = start + count;
    for (std::uint64_t i = start / entries; i <= (end - 1) / entries; ++i) {
        if (table_[i]) continue;
        table_[i] = next++ << g().cluster_bits;
        table_dirty_ = true;
        blocks_.create(table_[i]);
        areas_.add(table_[i], g().cluster(), Area::refcount_block);
    }
    // `missing` may be one more than needed; the spare cluster stays free.
    for (std::uint64_t cluster = start; cluster < next; ++cluster) {
        CO_TRY_ASSIGN(TableRef block, co_await block_of(cluster));
        put(*block, cluster % entries, 1);
    }
    take_extent(start + count, next - start - count);
    if (fresh_from_ != ~0ull) fresh_from_ = std::max(fresh_from_, next);
    co_return Extent{start << g().cluster_bits, count, false};
}

Task<Result<Extent>> Refcounts::allocate_exact(std::uint64_t count) {
    if (count == 1) {
        Result<Extent> one = co_await allocate(1);
        co_return one;
    }
    AsyncLock lock = co_await alloc_mutex_.lock();
    CO_TRY_ASSIGN(Extent extent, co_await allocate_exact_locked(count));
    lock.unlock();
    CO_TRY(co_await grow_table());
    co_return extent;
}

Task<Result<bool>> Refcounts::allocate_at(std::uint64_t cluster) {
    AsyncLock lock = co_await alloc_mutex_.lock();
    CO_TRY_ASSIGN(TableRef block, co_await block_of(cluster));
    std::uint64_t index = cluster % g().refcount_entries();
    if (!block || outgrown() || load_refcount(block->bytes.data(), index, g().refcount_order) != 0) co_return false;
    CO_TRY(claim_new(cluster, "a cluster"));
    put(*block, index, 1);
    take_extent(cluster, 1);
    co_return true;
}

Task<Result<std::uint64_t>> Refcounts::allocate_bytes(std::uint64_t bytes) {
    AsyncLock lock = co_await bytes_mutex_.lock();
    std::uint64_t const cluster = g().cluster();
    if (std::uint64_t at = bytes_next_) {
        std::uint64_t room = cluster - (at & g().cluster_mask());
        CO_TRY_ASSIGN(std::uint64_t count, co_await get(at >> g().cluster_bits));
        bool fits = count > 0 && count < g().max_refcount() && bytes_next_ == at;
        if (fits && bytes > room) {
            CO_TRY_ASSIGN(fits, co_await allocate_at((at >> g().cluster_bits) + 1));
        }
        if (fits) {
            CO_TRY(co_await change(align_down(at, cluster), 1, +1));
            bytes_next_ = (at + bytes) & g().cluster_mask() ? at + bytes : 0;
            co_return at;
        }
    }
    CO_TRY_ASSIGN(Extent extent, co_await allocate(1));
    bytes_next_ = bytes < cluster ? extent.offset + bytes : 0;
    co_return extent.offset;
}

bool Refcounts::outgrown() const {
    return table_.size() > (std::uint64_t(header_.refcount_table_clusters) << g().cluster_bits) / 8;
}

Task<Result<void>> Refcounts::grow_table() {
    if (!outgrown()) co_return Result<void>{};
    AsyncLock lock = co_await alloc_mutex_.lock();
    while (outgrown()) {
        std::uint64_t entries =
            std::min<std::uint64_t>(table_.size() + table_.size() / 2 + 1, max_refcount_table_bytes / 8);
        std::uint64_t clusters = div_ceil(entries * 8, g().cluster());
        CO_TRY_ASSIGN(Extent extent, co_await allocate_exact_locked(clusters));
        std::uint64_t old_bytes = std::uint64_t(header_.refcount_table_clusters) << g().cluster_bits;
        areas_.remove(header_.refcount_table_offset, old_bytes, Area::refcount_table);
        areas_.add(extent.offset, clusters << g().cluster_bits, Area::refcount_table);
        retired_.push_back({header_.refcount_table_offset, header_.refcount_table_clusters, false});
        header_.refcount_table_offset = extent.offset;
        header_.refcount_table_clusters = std::uint32_t(clusters);
        table_moved_ = table_dirty_ = true;
    }
    co_return Result<void>{};
}

} // namespace vmm::block::qcow2
