// Guest memory for helpers: typed loads and stores at linear addresses, and segment arithmetic.
#pragma once
#include "vmm/tcg/guest/x86/context.h"

#include <cstring>

namespace vmm::tcg::x86 {

// Loads a T at linear address va with the current privilege. False: a fault is pending.
template <class T> [[nodiscard]] bool load(X86Context& c, std::uint64_t va, T& value) {
    if (void const* host = tlb_lookup(c.engine.bank->read, va, sizeof(T))) {
        std::memcpy(&value, host, sizeof(T));
        return true;
    }
    return c.engine.memory->load(c.engine, va, sizeof(T), &value);
}

template <class T> [[nodiscard]] bool store(X86Context& c, std::uint64_t va, T const& value) {
    if (void* host = tlb_lookup(c.engine.bank->write, va, sizeof(T))) {
        std::memcpy(host, &value, sizeof(T));
        return true;
    }
    return c.engine.memory->store(c.engine, va, sizeof(T), &value);
}

// Whether `bytes` bytes at `offset` may be accessed through segment s (SDM vol. 3 5.3, 5.4). 64-bit code: always.
bool segment_allows(X86Context const& c, Seg s, std::uint64_t offset, std::uint64_t bytes, bool write);
// Linear address of an offset: the segment's base added (64-bit code: FS and GS only), wrapped to the mode's width.
std::uint64_t segment_linear(X86Context const& c, Seg s, std::uint64_t offset);

} // namespace vmm::tcg::x86
