// Software TLB: direct-mapped tables of linear page -> host address, one set per privilege view of an address space.
#pragma once
#include <array>
#include <cstdint>

namespace vmm::tcg {

// One translation. `tag` is the page's linear address (low 12 bits 0) when valid, else `invalid_tag`; host = va +
// addend. Only plain RAM is entered: everything else (MMIO, ROM writes, pages with code, clean pages under dirty
// logging, watchpoints) has no entry, so that a hit needs no further test.
struct TlbEntry {
    std::uint64_t tag = 0xfff;
    std::uint64_t addend = 0;
};
inline constexpr std::uint64_t invalid_tag = 0xfff;

// An access of `size` bytes at va hits entry e of va's slot when page(va + size - 1) == e.tag: this also sends accesses
// that cross a page to the slow path.
// A page that can be written can be read, at the same host address: a hit in `write` serves reads as well.
struct TlbBank {
    static constexpr unsigned entries = 4096;
    std::array<TlbEntry, entries> read, write;
    static constexpr unsigned slot(std::uint64_t va) { return unsigned(va >> 12) & (entries - 1); }
};

inline void* tlb_lookup(std::array<TlbEntry, TlbBank::entries> const& table, std::uint64_t va, unsigned size) {
    TlbEntry const& entry = table[TlbBank::slot(va)];
    if (((va + size - 1) & ~std::uint64_t(0xfff)) != entry.tag) [[unlikely]]
        return nullptr;
    return reinterpret_cast<void*>(va + entry.addend);
}

} // namespace vmm::tcg
