// Another width for the refcounts of an image: the whole structure is written anew, the header then switches to it.
#include "block/formats/qcow2/refcount_layout.h"
#include "block/formats/qcow2/store.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

Task<Result<std::set<std::uint64_t>>> Refcounts::blocks_at_width(unsigned order) {
    Geometry wanted = g();
    wanted.refcount_order = order;
    std::set<std::uint64_t> blocks;
    for (std::uint64_t index = 0; index < table_.size(); ++index) {
        std::uint64_t const first = index * g().refcount_entries();
        CO_TRY_ASSIGN(TableRef block, co_await block_of(first));
        if (!block) continue;
        for (std::uint64_t i = 0; i < g().refcount_entries(); ++i) {
            std::uint64_t const count = load_refcount(block->bytes.data(), i, g().refcount_order);
            if (count == 0) continue;
            if (count > wanted.max_refcount())
                co_return Error(fmt::format("Cannot decrease refcount entry width to {} bits: Cluster at offset {:#x} "
                                            "has a refcount of {}",
                                            1u << order, (first + i) << g().cluster_bits, count),
                                EINVAL);
            std::uint64_t const at = (first + i) / wanted.refcount_entries();
            if (at >= max_refcount_table_bytes / 8) co_return Error("The new refcount table would be too large", EFBIG);
            blocks.insert(blocks.end(), at);
        }
    }
    co_return blocks;
}

Task<Result<void>> Refcounts::copy_counts(std::uint64_t first, unsigned order, Bytes to) {
    std::uint64_t const end = first + ((std::uint64_t(to.size()) * 8) >> order), entries = g().refcount_entries();
    for (std::uint64_t cluster = first; cluster < end;) {
        std::uint64_t const part_end = std::min(end, align_down(cluster, entries) + entries);
        CO_TRY_ASSIGN(TableRef block, co_await block_of(cluster));
        for (; block && cluster < part_end; ++cluster)
            store_refcount(to.data(), cluster - first, order,
                           load_refcount(block->bytes.data(), cluster % entries, g().refcount_order));
        cluster = part_end;
    }
    co_return Result<void>{};
}

Task<Result<void>> Store::check_refcount_width(unsigned order) {
    Result<std::set<std::uint64_t>> blocks = co_await refcounts_.blocks_at_width(order);
    if (!blocks.ok()) co_return co_await note_corruption(blocks.error());
    co_return Result<void>{};
}

Task<Result<void>> Store::change_refcount_width(unsigned order,
                                                std::function<void(std::uint64_t, std::uint64_t)> progress) {
    CO_TRY(co_await settle()); // the tables in memory and in the file are the same
    Result<std::set<std::uint64_t>> blocks = co_await refcounts_.blocks_at_width(order);
    if (!blocks.ok()) co_return co_await note_corruption(blocks.error());
    Geometry wanted = geometry_;
    wanted.refcount_order = order;
    CO_TRY_ASSIGN(std::uint64_t start, co_await refcounts_.first_unused_cluster());
    if (file().limits().growable) start = std::max(start, div_ceil(file().size_bytes(), geometry_.cluster()));
    CO_TRY_ASSIGN(RefcountLayout layout, lay_out_refcounts(wanted, start, std::move(*blocks)));
    std::uint64_t done = 0;
    FillCounts fill = [&](std::uint64_t index, Bytes block) {
        if (progress) progress(done++, layout.blocks.size());
        return refcounts_.copy_counts(index * wanted.refcount_entries(), order, block);
    };
    CO_TRY_ASSIGN(std::vector<std::uint64_t> table, co_await write_refcounts(file(), wanted, layout, fill));
    CO_TRY(co_await flush_files());

    Header const before = s_.header;
    s_.header.refcount_table_offset = layout.start << geometry_.cluster_bits;
    s_.header.refcount_table_clusters = std::uint32_t(layout.table_clusters);
    s_.header.refcount_order = order;
    places_ = places_in(s_.header);
    Result<void> switched = co_await write_header();
    if (!switched.ok()) {
        s_.header = before;
        places_ = places_in(s_.header);
        co_return switched;
    }
    std::uint64_t const cluster = geometry_.cluster();
    std::vector<std::uint64_t> const old = refcounts_.table();
    areas_.remove(before.refcount_table_offset, before.refcount_table_clusters * cluster, Area::refcount_table);
    for (std::uint64_t block : old)
        if (block) areas_.remove(block, cluster, Area::refcount_block);
    areas_.add(s_.header.refcount_table_offset, layout.table_clusters * cluster, Area::refcount_table);
    for (std::uint64_t block : table)
        if (block) areas_.add(block, cluster, Area::refcount_block);
    geometry_.refcount_order = order;
    refcounts_.blocks().forget_all();
    refcounts_.replace_structure(std::move(table), order);
    release(before.refcount_table_offset, before.refcount_table_clusters);
    for (std::uint64_t block : old)
        if (block) release(block, 1);
    Result<void> freed = co_await settle();
    co_return freed;
}

} // namespace vmm::block::qcow2
