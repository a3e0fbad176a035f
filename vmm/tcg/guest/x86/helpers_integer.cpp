// Helpers of general-purpose instructions: segment checks, wide compare-exchange, decimal adjustment, odds and ends.
#include "vmm/tcg/guest/x86/guest_memory.h"
#include "vmm/tcg/guest/x86/helpers.h"

#include <array>

namespace vmm::tcg::x86 {

// --- segments

bool segment_allows(X86Context const& c, Seg s, std::uint64_t offset, std::uint64_t bytes, bool write) {
    Mode const mode = c.mode();
    if (mode.is64()) return true;
    Segment const& segment = c.state.seg[s];
    if (mode.is(Mode::protected_mode)) {
        bool const code = segment.attributes & attr::code, bit1 = segment.attributes & attr::writable;
        if (segment.unusable()) return false;
        if (write ? code || !bit1 : code && !bit1) return false;
    }
    std::uint64_t const last = offset + bytes - 1;
    bool const expand_down = (segment.attributes & (attr::code | attr::expand_down)) == attr::expand_down;
    // A limit of 4 GiB stops nothing: what goes on past the end may fault or not (SDM vol. 3 5.3); hosts let it wrap.
    if (!expand_down || !mode.is(Mode::protected_mode)) return last <= segment.limit || segment.limit == 0xffffffff;
    return offset > segment.limit && last <= (segment.attributes & attr::db ? 0xffffffffu : 0xffffu);
}

std::uint64_t segment_linear(X86Context const& c, Seg s, std::uint64_t offset) {
    if (c.mode().is64()) return s == fs || s == gs ? offset + c.state.seg[s].base : offset;
    return std::uint32_t(offset + c.state.seg[s].base);
}

namespace helper {

std::uint64_t segment_address(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    Seg const s = Seg(a & 0xff);
    if (!segment_allows(c, s, b, a >> 8 & 0x7fffff, a >> 31 & 1)) {
        c.raise(s == ss ? vec::ss : vec::gp, 0);
        return 0;
    }
    return segment_linear(c, s, b);
}

} // namespace helper

// --- CMPXCHG8B, CMPXCHG16B

namespace {

void set_zero_flag(X86Context& c, bool on) {
    std::uint64_t const image = cc_image(c.engine) & ~flag::zf;
    set_cc_raw(c.engine, on ? image | flag::zf : image);
}

void set_low32(std::uint64_t& r, std::uint64_t v) { r = std::uint32_t(v); }

using Wide = unsigned __int128;

// Replaces *p by `desired` if it is `expected`; returns what was there. p is 16-byte aligned.
#ifdef __x86_64__
__attribute__((target("cx16")))
#endif
Wide compare_exchange(Wide* p, Wide expected, Wide desired) {
    return __sync_val_compare_and_swap(p, expected, desired);
}

// The same without a host pointer: device memory or an operand across pages. False: fault pending.
template <class T> bool locked_exchange(X86Context& c, std::uint64_t va, T expected, T desired, T& old) {
    c.engine.memory->rmw_lock(c.engine);
    bool ok = load(c, va, old);
    T const result = ok && old == expected ? desired : old;
    ok = ok && store(c, va, result);
    c.engine.memory->rmw_unlock(c.engine);
    return ok;
}

void compare_exchange_8(X86Context& c, std::uint64_t va) {
    auto& r = c.state.gpr;
    std::uint64_t const expected = std::uint32_t(r[rax]) | r[rdx] << 32;
    std::uint64_t const desired = std::uint32_t(r[rbx]) | r[rcx] << 32;
    std::uint64_t old = expected;
    void* host = c.engine.memory->rmw_pointer(c.engine, va, 8);
    // One that is not aligned takes the bus lock: a host instruction across cache lines stops all other processors.
    if (host && !(va & 7))
        __atomic_compare_exchange_n(static_cast<std::uint64_t*>(host), &old, desired, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
    else if (c.faulted() || !locked_exchange(c, va, expected, desired, old))
        return;
    set_zero_flag(c, old == expected);
    if (old == expected) return;
    set_low32(r[rax], old);
    set_low32(r[rdx], old >> 32);
}

void compare_exchange_16(X86Context& c, std::uint64_t va) {
    if (va & 15) return c.raise(vec::gp, 0);
    auto& r = c.state.gpr;
    Wide const expected = Wide(r[rdx]) << 64 | r[rax], desired = Wide(r[rcx]) << 64 | r[rbx];
    Wide old = 0;
    if (void* host = c.engine.memory->rmw_pointer(c.engine, va, 16))
        old = compare_exchange(static_cast<Wide*>(host), expected, desired);
    else if (c.faulted() || !locked_exchange(c, va, expected, desired, old))
        return;
    set_zero_flag(c, old == expected);
    if (old == expected) return;
    r[rax] = std::uint64_t(old);
    r[rdx] = std::uint64_t(old >> 64);
}

// --- decimal adjustment

std::uint8_t al(X86Context const& c) { return std::uint8_t(c.state.gpr[rax]); }
std::uint8_t ah(X86Context const& c) { return std::uint8_t(c.state.gpr[rax] >> 8); }
void set_ax(X86Context& c, unsigned value) {
    c.state.gpr[rax] = (c.state.gpr[rax] & ~std::uint64_t(0xffff)) | (value & 0xffff);
}

// SF, ZF, PF by `result`, the flags of `extra` set, the others clear.
void set_result_flags(X86Context& c, std::uint8_t result, std::uint64_t extra) {
    set_cc_raw(c.engine, cc_image<std::uint8_t>(CcKind::logic, result, 0, 0) | extra);
}

// AAA (direction +1), AAS (-1): SDM vol. 2. SF, ZF, PF, OF are undefined and kept.
void ascii_adjust(X86Context& c, int direction) {
    std::uint64_t const image = cc_image(c.engine);
    bool const adjust = (al(c) & 0xf) > 9 || (image & flag::af);
    unsigned const ax = unsigned(std::uint16_t(c.state.gpr[rax])) + unsigned(adjust ? direction * 0x106 : 0);
    set_ax(c, ax & 0xff0f);
    std::uint64_t const both = flag::af | flag::cf;
    set_cc_raw(c.engine, adjust ? image | both : image & ~both);
}

void decimal_adjust(X86Context& c, int direction) {
    std::uint64_t const image = cc_image(c.engine);
    std::uint8_t const old = al(c);
    int value = old;
    std::uint64_t flags = 0;
    if ((old & 0xf) > 9 || (image & flag::af)) {
        value += direction * 6;
        // A borrow or carry out of AL by this step alone counts (SDM: CF := old_CF or carry).
        if (value < 0 || value > 0xff) flags |= direction < 0 ? flag::cf : 0;
        flags |= flag::af;
    }
    if (old > 0x99 || (image & flag::cf)) {
        value += direction * 0x60;
        flags |= flag::cf;
    }
    set_ax(c, unsigned(ah(c)) << 8 | std::uint8_t(value));
    set_result_flags(c, std::uint8_t(value), flags);
}

constexpr std::array<std::uint32_t, 256> crc32c_table = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t v = i;
        for (unsigned bit = 0; bit < 8; ++bit) v = v & 1 ? v >> 1 ^ 0x82f63b78u : v >> 1;
        table[i] = v;
    }
    return table;
}();

} // namespace

namespace helper {

std::uint64_t cmpxchg_wide(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    b == 8 ? compare_exchange_8(c, a) : compare_exchange_16(c, a);
    return 0;
}

std::uint64_t crc32c(X86Context&, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    std::uint32_t crc = std::uint32_t(a);
    for (; d; --d, b >>= 8) crc = crc >> 8 ^ crc32c_table[(crc ^ b) & 0xff];
    return crc;
}

std::uint64_t aaa(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) { return ascii_adjust(c, 1), 0; }
std::uint64_t aas(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) { return ascii_adjust(c, -1), 0; }
std::uint64_t daa(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) { return decimal_adjust(c, 1), 0; }
std::uint64_t das(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) { return decimal_adjust(c, -1), 0; }

std::uint64_t aam(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (!a) return c.raise(vec::de), 0;
    unsigned const value = al(c);
    set_ax(c, unsigned(value / a) << 8 | unsigned(value % a));
    set_result_flags(c, al(c), 0);
    return 0;
}

std::uint64_t aad(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    set_ax(c, unsigned(al(c) + ah(c) * a) & 0xff);
    set_result_flags(c, al(c), 0);
    return 0;
}

std::uint64_t bound(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    if (std::int64_t(a) < std::int64_t(b) || std::int64_t(a) > std::int64_t(d)) c.raise(vec::br);
    return 0;
}

std::uint64_t arpl(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    bool const raise = (a & 3) < (b & 3);
    set_zero_flag(c, raise);
    return raise ? (a & ~std::uint64_t(3)) | (b & 3) : a;
}

} // namespace helper
} // namespace vmm::tcg::x86
