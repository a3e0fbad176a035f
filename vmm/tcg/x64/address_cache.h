// AddressCache: guest address -> code, for indirect jumps; one for each address space and mode lately in use.
#pragma once
#include <array>
#include <cstdint>

namespace vmm::tcg::x64 {

// Two places for each address, a pair. An empty entry is the address 0 with code that looks the address up the long
// way.
struct AddressCache {
    static constexpr unsigned entries = 16384;
    struct Entry {
        std::uint64_t address;
        std::uint8_t const* code;
    };
    // Aligned to a pair: the second place is found by flipping a bit of the first one's address.
    alignas(64) std::array<Entry, entries> table;
    // What the entries hold for (EngineContext::mode, fetch_epoch).
    std::uint64_t mode = 0;
    std::uint64_t const* fetches = nullptr;
    std::uint64_t epoch = 0, used_at = 0; // used_at 0: never

    // All entries, or (the same in effect) those filled since the last time.
    void clear(std::uint8_t const* miss) {
        if (filled_count_ > filled_.size())
            table.fill({0, miss});
        else
            for (unsigned i = 0; i < filled_count_; ++i) table[filled_[i]] = {0, miss};
        filled_count_ = 0;
    }
    void set(Entry& entry, Entry const& to) {
        entry = to;
        if (filled_count_ < filled_.size()) filled_[filled_count_] = std::uint16_t(&entry - table.data());
        if (filled_count_ <= filled_.size()) ++filled_count_;
    }
    // As the generated code does it (control.cpp).
    static unsigned index(std::uint64_t address) {
        std::uint32_t a = std::uint32_t(address);
        return ((a << 4 | a >> 28) ^ (a >> 8 | a << 24)) >> 4 & (entries - 1);
    }
    // Where `address` is, or is to be put.
    Entry& entry(std::uint64_t address) {
        Entry &first = table[index(address)], &second = table[index(address) ^ 1];
        for (Entry* e : {&first, &second})
            if (e->address == address || e->address == 0) return *e;
        return ++turn_ & 1 ? first : second;
    }

private:
    unsigned turn_ = 0;
    std::array<std::uint16_t, 2048> filled_;
    unsigned filled_count_ = 2049; // more than filled_ can hold: all of them
};

} // namespace vmm::tcg::x64
