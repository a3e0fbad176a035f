// BlockTable: blocks by host address of their bytes and mode: an open-addressing table, so that a lookup touches one
// cache line of it.
#pragma once
#include "vmm/base/assert.h"
#include "vmm/tcg/huge_memory.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace vmm::tcg {

// Owns the blocks. Used on one thread.
template <class Block> class BlockTable {
public:
    std::size_t size() const { return count_; }

    // Null: not there.
    Block* find(std::uint8_t const* host, std::uint64_t mode) const {
        for (std::size_t i = home(host, mode);; i = next(i)) {
            Entry const& e = entries_[i];
            if (e.host == host && e.mode == mode) return e.block.get();
            if (!e.host) return nullptr;
        }
    }
    // The place must be free; `host` not null.
    void add(std::uint8_t const* host, std::uint64_t mode, std::unique_ptr<Block> block) {
        if (2 * (count_ + 1) > entries_.size()) grow();
        ++count_;
        place({host, mode, std::move(block)});
    }
    // Takes out a block that is there.
    std::unique_ptr<Block> take(std::uint8_t const* host, std::uint64_t mode) {
        std::size_t i = home(host, mode);
        while (entries_[i].host != host || entries_[i].mode != mode) {
            VMM_ASSERT(entries_[i].host);
            i = next(i);
        }
        std::unique_ptr<Block> block = std::move(entries_[i].block);
        --count_;
        // Entries behind the gap move into it unless that would put them before their home.
        for (std::size_t j = next(i);; j = next(j)) {
            if (!entries_[j].host) break;
            std::size_t const mask = entries_.size() - 1,
                              from_home = (j - home(entries_[j].host, entries_[j].mode)) & mask;
            if (from_home < ((j - i) & mask)) continue;
            entries_[i] = std::move(entries_[j]);
            i = j;
        }
        entries_[i] = {};
        return block;
    }
    template <class F> void for_each(F&& f) const {
        for (Entry const& e : entries_)
            if (e.host) f(*e.block);
    }
    // Gives every block to `f` as unique_ptr; the table is empty afterwards.
    template <class F> void take_all(F&& f) {
        for (Entry& e : entries_) {
            if (e.host) f(std::move(e.block));
            e = {};
        }
        count_ = 0;
    }

private:
    struct Entry {
        std::uint8_t const* host = nullptr; // null: free
        std::uint64_t mode = 0;
        std::unique_ptr<Block> block;
    };
    using Entries = std::vector<Entry, HugeAllocator<Entry>>;
    static constexpr std::size_t first_size = 4096; // a power of two
    std::size_t home(std::uint8_t const* host, std::uint64_t mode) const {
        std::uint64_t const key = reinterpret_cast<std::uintptr_t>(host) ^ mode << 40;
        return std::size_t(key * 0x9e3779b97f4a7c15ull >> 32) & (entries_.size() - 1);
    }
    std::size_t next(std::size_t i) const { return (i + 1) & (entries_.size() - 1); }
    void place(Entry entry) {
        std::size_t i = home(entry.host, entry.mode);
        while (entries_[i].host) {
            VMM_ASSERT(entries_[i].host != entry.host || entries_[i].mode != entry.mode);
            i = next(i);
        }
        entries_[i] = std::move(entry);
    }
    void grow() {
        Entries old(2 * entries_.size());
        old.swap(entries_);
        for (Entry& e : old)
            if (e.host) place(std::move(e));
    }

    Entries entries_ = Entries(first_size);
    std::size_t count_ = 0;
};

} // namespace vmm::tcg
