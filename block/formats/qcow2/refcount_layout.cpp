#include "block/formats/qcow2/refcount_layout.h"

#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

Result<RefcountLayout> lay_out_refcounts(Geometry const& g, std::uint64_t start, std::set<std::uint64_t> blocks) {
    std::uint64_t const entries = g.refcount_entries();
    RefcountLayout layout{.start = start, .blocks = std::move(blocks)};
    layout.blocks.insert(start / entries);
    for (;;) { // the blocks count themselves and the table
        if (*layout.blocks.rbegin() >= max_refcount_table_bytes / 8)
            return Error("The new refcount table would be too large", EFBIG);
        std::uint64_t const end = layout.end();
        for (std::uint64_t i = start / entries; i * entries < end; ++i) layout.blocks.insert(i);
        layout.table_clusters = div_ceil((*layout.blocks.rbegin() + 1) * 8, g.cluster());
        if (layout.end() == end) return layout;
    }
}

Task<Result<std::vector<std::uint64_t>>> write_refcounts(BlockDevice& file, Geometry g, RefcountLayout layout,
                                                         FillCounts fill) {
    std::uint64_t const entries = g.refcount_entries();
    std::vector<std::uint64_t> table(*layout.blocks.rbegin() + 1);
    std::vector<std::uint8_t> block(g.cluster());
    std::uint64_t next = layout.start + layout.table_clusters;
    for (std::uint64_t i : layout.blocks) {
        std::ranges::fill(block, std::uint8_t(0));
        CO_TRY(co_await fill(i, Bytes(block)));
        std::uint64_t const end = std::min(layout.end(), (i + 1) * entries);
        for (std::uint64_t c = std::max(layout.start, i * entries); c < end; ++c)
            store_refcount(block.data(), c - i * entries, g.refcount_order, 1);
        table[i] = next++ << g.cluster_bits;
        ConstBytes all(block);
        CO_TRY(co_await write_bytes(file, table[i], all));
    }
    std::vector<std::uint8_t> raw(layout.table_clusters << g.cluster_bits);
    for (std::size_t i = 0; i < table.size(); ++i) store_be64(raw.data() + i * 8, table[i]);
    ConstBytes all(raw);
    CO_TRY(co_await write_bytes(file, layout.start << g.cluster_bits, all));
    co_return table;
}

} // namespace vmm::block::qcow2
