#include "vmm/tcg/guest/x86/fetch_cache.h"

#include <algorithm>

namespace vmm::tcg::x86 {

void FetchCache::put(std::uint64_t page, FetchResult const& where, unsigned page_bits, bool global) {
    entries_[slot(page)] = {page, where, std::uint8_t(page_bits), global};
    used_ = true;
    local_ = local_ || !global;
    local_entries_ = local_entries_ || !global;
    see(page);
    if (page_bits == 12) return;
    std::uint64_t span = (std::uint64_t(1) << page_bits) - 1;
    large_first_ = std::min(large_first_, page & ~span);
    large_last_ = std::max(large_last_, page | span);
}

void FetchCache::begin_epoch() {
    ++epoch_;
    seen_.reset();
    seen_first_ = ~std::uint64_t(0), seen_last_ = 0;
    local_ = false;
}

void FetchCache::clear() {
    if (!used_) return;
    for (Entry& e : entries_) e.tag = invalid_tag;
    large_first_ = ~std::uint64_t(0);
    large_last_ = 0;
    used_ = local_entries_ = false;
    begin_epoch();
}

void FetchCache::clear_non_global() {
    if (!local_entries_) return;
    for (Entry& e : entries_)
        if (!e.global) e.tag = invalid_tag;
    local_entries_ = false;
    if (local_) begin_epoch();
}

void FetchCache::invalidate(std::uint64_t va, bool globals) {
    if (!used_) return;
    bool large = va >= large_first_ && va <= large_last_;
    auto drop = [&](Entry& e) {
        if (e.tag != invalid_tag && (globals || !e.global) && (e.tag ^ va) >> e.page_bits == 0) e.tag = invalid_tag;
    };
    if (large)
        for (Entry& e : entries_) drop(e);
    else
        drop(entries_[slot(va)]);
    std::uint64_t const page = va >> page_bits << page_bits;
    bool const seen = page >= seen_first_ && page <= seen_last_ && seen_.test(mark(va));
    if (large || seen) begin_epoch();
}

} // namespace vmm::tcg::x86
