// BlockCache: one vCPU's translated blocks, by where their code lies in host memory and the mode they were made for.
#pragma once
#include "vmm/memory/ram.h"
#include "vmm/tcg/backend.h"
#include "vmm/tcg/engine/block_table.h"
#include "vmm/tcg/huge_memory.h"

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace vmm::tcg {

struct CachedBlock {
    RamBlock* ram = nullptr;
    std::uint64_t page_offset = 0;      // of the page in its RamBlock
    std::uint64_t next_page_offset = 0; // of the second page (and its block), for a straddling instruction
    RamBlock* next_ram = nullptr;
    std::uint64_t mode = 0;
    std::uint64_t linear = 0; // guest address it was translated at; for listings
    std::uint16_t start = 0, bytes = 0, guest_insns = 0;
    bool crosses_page = false;
    std::unique_ptr<Translation> translation;
    std::array<CachedBlock*, 2> next_in_page{}; // BlockCache's: of its first page's blocks, and its second's

    static void* operator new(std::size_t, Pool<CachedBlock>& pool) { return pool.take(); }
    static void operator delete(void* p, Pool<CachedBlock>&) { Pool<CachedBlock>::give_back(p); }
    static void operator delete(void* p) { Pool<CachedBlock>::give_back(p); }
};

// Used on the vCPU's thread only.
class BlockCache {
public:
    explicit BlockCache(Backend& backend) : backend_(backend) {}
    ~BlockCache() { clear(); }

    // The block starting at `start` of the page, or null. O(1).
    CachedBlock* find(RamBlock& ram, std::uint64_t page_offset, std::uint16_t start, std::uint64_t mode) {
        return blocks_.find(ram.host() + page_offset + start, mode);
    }
    CachedBlock& add(std::unique_ptr<CachedBlock> block);
    // Drops the blocks that touch granules of the page. Their memory stays until bury(): one may be executing.
    void drop(RamBlock& ram, std::uint64_t page_offset, std::uint64_t granules);
    void clear();
    // Frees dropped blocks; nothing translated may be executing.
    void bury() { graveyard_.clear(); }
    std::size_t size() const { return blocks_.size(); }
    template <class F> void for_each(F&& f) const { blocks_.for_each(f); }
    // How often clear() was called, and blocks dropped because their code changed.
    std::uint64_t flushes() const { return flushes_; }
    std::uint64_t invalidations() const { return invalidations_; }

private:
    void remove(CachedBlock* block);
    static std::uint8_t const* page_of(CachedBlock const& b, bool second) {
        return second ? b.next_ram->host() + b.next_page_offset : b.ram->host() + b.page_offset;
    }
    // The link by which the block hangs on a page: its second one when it begins in another.
    static CachedBlock*& next_in(CachedBlock& b, std::uint8_t const* page) {
        return b.next_in_page[page_of(b, false) != page];
    }
    static std::uint8_t const* bytes_of(CachedBlock const& b) { return b.ram->host() + b.page_offset + b.start; }

    Backend& backend_;
    BlockTable<CachedBlock> blocks_;
    // The first of the blocks that touch a page, by the page's host address; the others hang on it.
    std::unordered_map<std::uint8_t const*, CachedBlock*> by_page_;
    std::vector<std::unique_ptr<CachedBlock>> graveyard_;
    std::uint64_t flushes_ = 0, invalidations_ = 0;
};

} // namespace vmm::tcg
