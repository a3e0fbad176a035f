#include "vmm/tcg/engine/block_cache.h"

#include "vmm/tcg/engine/code_tracker.h"

#include <algorithm>

namespace vmm::tcg {

CachedBlock& BlockCache::add(std::unique_ptr<CachedBlock> block) {
    CachedBlock* b = block.get();
    by_page_[b->ram->host() + b->page_offset].push_back(b);
    if (b->crosses_page) by_page_[b->next_ram->host() + b->next_page_offset].push_back(b);
    blocks_.add(bytes_of(*b), b->mode, std::move(block));
    return *b;
}

void BlockCache::remove(CachedBlock* b) {
    auto leave = [&](std::uint8_t const* page) {
        auto it = by_page_.find(page);
        std::erase(it->second, b);
        if (it->second.empty()) by_page_.erase(it);
    };
    leave(b->ram->host() + b->page_offset);
    if (b->crosses_page) leave(b->next_ram->host() + b->next_page_offset);
    backend_.unlink(*b->translation);
    graveyard_.push_back(blocks_.take(bytes_of(*b), b->mode));
}

void BlockCache::drop(RamBlock& ram, std::uint64_t page_offset, std::uint64_t granules) {
    auto it = by_page_.find(ram.host() + page_offset);
    if (it == by_page_.end()) return;
    std::vector<CachedBlock*> hit;
    for (CachedBlock* b : it->second) {
        bool first_page = b->ram == &ram && b->page_offset == page_offset;
        std::uint64_t in_first = std::min<std::uint64_t>(b->bytes, page_size - b->start);
        std::uint64_t mask =
            first_page ? CodeTracker::granules(b->start, in_first) : CodeTracker::granules(0, b->bytes - in_first);
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
