#include "vmm/tcg/engine/block_cache.h"

#include "vmm/tcg/engine/code_tracker.h"

#include <algorithm>

namespace vmm::tcg {

CachedBlock& BlockCache::add(std::unique_ptr<CachedBlock> block) {
    CachedBlock* b = block.get();
    auto enter = [&](std::uint8_t const* page) {
        CachedBlock*& first = by_page_[page];
        next_in(*b, page) = first;
        first = b;
    };
    enter(page_of(*b, false));
    if (b->crosses_page && page_of(*b, true) != page_of(*b, false)) enter(page_of(*b, true));
    blocks_.add(bytes_of(*b), b->mode, std::move(block));
    return *b;
}

void BlockCache::remove(CachedBlock* b) {
    auto leave = [&](std::uint8_t const* page) {
        auto it = by_page_.find(page);
        CachedBlock** link = &it->second;
        while (*link != b) link = &next_in(**link, page);
        *link = next_in(*b, page);
        if (!it->second) by_page_.erase(it);
    };
    leave(page_of(*b, false));
    if (b->crosses_page && page_of(*b, true) != page_of(*b, false)) leave(page_of(*b, true));
    backend_.unlink(*b->translation);
    graveyard_.push_back(blocks_.take(bytes_of(*b), b->mode));
}

void BlockCache::drop(RamBlock& ram, std::uint64_t page_offset, std::uint64_t granules) {
    std::uint8_t const* const page = ram.host() + page_offset;
    auto it = by_page_.find(page);
    if (it == by_page_.end()) return;
    std::vector<CachedBlock*> hit;
    for (CachedBlock* b = it->second; b; b = next_in(*b, page)) {
        std::uint64_t const in_first = std::min<std::uint64_t>(b->bytes, page_size - b->start);
        std::uint64_t mask = page_of(*b, false) == page ? CodeTracker::granules(b->start, in_first) : 0;
        if (b->crosses_page && page_of(*b, true) == page) mask |= CodeTracker::granules(0, b->bytes - in_first);
        if (mask & granules) hit.push_back(b);
    }
    invalidations_ += hit.size();
    for (CachedBlock* b : hit) remove(b);
}

void BlockCache::clear() {
    ++flushes_;
    blocks_.take_all([&](std::unique_ptr<CachedBlock> block) {
        backend_.unlink(*block->translation);
        graveyard_.push_back(std::move(block));
    });
    by_page_.clear();
}

} // namespace vmm::tcg
