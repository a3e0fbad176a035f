// FetchCache: where the code of pages executed lately lies, for one view of the address space; and the epoch that tells
// whoever remembers code by its address whether that still holds.
#pragma once
#include "vmm/memory/io_handler.h"
#include "vmm/memory/ram.h"
#include "vmm/tcg/mmu/tlb.h"

#include <array>
#include <bitset>
#include <cstdint>

namespace vmm::tcg::x86 {

// Where the code of one linear page lies. `host` holds the page's 4096 bytes. Without `ram` (code in device memory) the
// bytes are a copy that the next two fetches may overwrite: do not keep a translation of them.
struct FetchResult {
    std::uint8_t const* host = nullptr; // null: a fault has been recorded
    RamBlock* ram = nullptr;
    std::uint64_t ram_offset = 0; // of the page
    GuestPhys phys = 0;           // of the page
    explicit operator bool() const { return host != nullptr; }
};

// Direct-mapped. Whoever looks pages up here may remember what lies in them for as long as the epoch stays: it moves
// when a page that was looked up since it last moved may have changed, also when that page has left the cache.
class FetchCache {
public:
    static constexpr unsigned entries = 256;

    // `page`: a page's linear address. Null: not known.
    FetchResult const* find(std::uint64_t page) {
        Entry const& e = entries_[slot(page)];
        if (e.tag != page) return nullptr;
        see(page);
        local_ = local_ || !e.global;
        return &e.where;
    }
    void put(std::uint64_t page, FetchResult const& where, unsigned page_bits, bool global);

    // Forgets everything / what is not global / the page at va, global or (`globals`) not.
    void clear();
    void clear_non_global();
    void invalidate(std::uint64_t va, bool globals);

    // Looked up since the epoch began: pages that belong to one address space only.
    bool local() const { return local_; }
    std::uint64_t const* epoch() const { return &epoch_; }

private:
    struct Entry {
        std::uint64_t tag = invalid_tag;
        FetchResult where;
        std::uint8_t page_bits = 0;
        bool global = false;
    };
    static constexpr std::size_t marks = 4096;
    static unsigned slot(std::uint64_t page) { return unsigned(page >> page_bits) % entries; }
    static std::size_t mark(std::uint64_t page) { return std::size_t(page >> page_bits) % marks; }
    void see(std::uint64_t page) {
        seen_.set(mark(page));
        if (page < seen_first_) seen_first_ = page;
        if (page > seen_last_) seen_last_ = page;
    }
    void begin_epoch();

    std::array<Entry, entries> entries_{};
    // Pages looked up in this epoch: where they lie (for a kernel's code that keeps data away), and marks, which some
    // pages share.
    std::uint64_t seen_first_ = ~std::uint64_t(0), seen_last_ = 0;
    std::bitset<marks> seen_;
    std::uint64_t epoch_ = 0;
    std::uint64_t large_first_ = ~std::uint64_t(0), large_last_ = 0; // where code in large pages was seen
    bool local_ = false, local_entries_ = false, used_ = false;
};

} // namespace vmm::tcg::x86
