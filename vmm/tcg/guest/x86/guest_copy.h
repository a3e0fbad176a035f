// Copies between helpers' buffers and guest memory, any length; faults as the guest's own accesses would. Alignment is
// not checked but for operands of 2, 4 and 8 bytes across pages: the pieces are not what the guest's operand is.
#pragma once
#include "vmm/tcg/guest/x86/context.h"

#include <algorithm>
#include <cstring>

namespace vmm::tcg::x86 {

inline constexpr unsigned guest_page_bytes = 4096, slow_access_bytes = 16;

// Bytes from va to the end of its page, at most n.
inline unsigned in_page(std::uint64_t va, unsigned n) {
    return std::min(n, guest_page_bytes - unsigned(va & (guest_page_bytes - 1)));
}

// The size of one slow access of at most n bytes: none of those #AC asks about is misaligned.
inline unsigned slow_step(std::uint64_t va, unsigned n) {
    if (n > 8) return std::min(n, slow_access_bytes);
    unsigned step = 8;
    while (step > n || (va & (step - 1))) step /= 2;
    return step;
}

// False: a fault is pending (what came before it may have been copied).
inline bool guest_load(X86Context& c, std::uint64_t va, void* to, unsigned n) {
    auto* out = static_cast<char*>(to);
    for (unsigned step; n; n -= step, va += step, out += step) {
        step = in_page(va, n);
        if (void* host = tlb_lookup(c.engine.bank->read, va, step)) {
            std::memcpy(out, host, step);
            continue;
        }
        step = slow_step(va, step);
        if (!c.engine.memory->load(c.engine, va, step, out)) return false;
    }
    return true;
}
inline bool guest_store(X86Context& c, std::uint64_t va, void const* from, unsigned n) {
    // Operands across pages: all or nothing.
    if (n <= slow_access_bytes && in_page(va, n) < n) return c.engine.memory->store(c.engine, va, n, from);
    auto const* in = static_cast<char const*>(from);
    for (unsigned step; n; n -= step, va += step, in += step) {
        step = in_page(va, n);
        if (void* host = tlb_lookup(c.engine.bank->write, va, step)) {
            std::memcpy(host, in, step);
            continue;
        }
        step = slow_step(va, step);
        if (!c.engine.memory->store(c.engine, va, step, in)) return false;
    }
    return true;
}

} // namespace vmm::tcg::x86
