// AddressCache: guest address -> code, for indirect jumps; one for each address space and mode lately in use.
#pragma once
#include "vmm/tcg/mmu/tlb.h"

#include <array>
#include <cstdint>

namespace vmm::tcg::x64 {

// Direct-mapped. An empty entry is the address 0 with code that looks the address up the long way.
struct AddressCache {
    static constexpr unsigned entries = 4096;
    struct Entry {
        std::uint64_t address;
        std::uint8_t const* code;
    };
    std::array<Entry, entries> table;
    std::uint64_t mode = 0;
    TlbBank const* bank = nullptr;
    std::uint64_t epoch = 0, used_at = 0; // used_at 0: never

    void clear(std::uint8_t const* miss) { table.fill({0, miss}); }
    // As the generated code does it (control.cpp).
    static unsigned index(std::uint64_t address) {
        std::uint32_t a = std::uint32_t(address);
        return ((a << 4 | a >> 28) ^ (a >> 8 | a << 24)) >> 4 & (entries - 1);
    }
    Entry& entry(std::uint64_t address) { return table[index(address)]; }
};

} // namespace vmm::tcg::x64
