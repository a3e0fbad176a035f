// Repeated string instructions. RAM is worked on in runs that lie in one page at both ends, with host pointers; what
// has no host pointer (devices, code pages, elements across pages, DF = 1) goes element by element. Registers are
// updated after each run, so that a fault or an exit request finds them exact.
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/string_run.h"

namespace vmm::tcg::x86 {
namespace {

template <class T> T* host(std::array<TlbEntry, TlbBank::entries> const& table, std::uint64_t va, std::uint64_t n) {
    return static_cast<T*>(tlb_lookup(table, va, unsigned(n * sizeof(T))));
}

template <class T> T get(T const* p) {
    T v;
    std::memcpy(&v, p, sizeof(T));
    return v;
}

// --- MOVS

// Ascending, each element read whole before it is written: an overlap with the destination ahead replicates.
template <class T> void copy_elements(T* to, T const* from, std::uint64_t n) {
    auto const distance = reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from);
    if (distance >= n * sizeof(T)) { // also when `to` is below `from`
        std::memmove(to, from, n * sizeof(T));
        return;
    }
    for (std::uint64_t i = 0; i < n; ++i) {
        T const v = get(from + i);
        std::memcpy(to + i, &v, sizeof(T));
    }
}

template <class T> void move_strings(StringRun& s) {
    while (s.remaining()) {
        std::uint64_t n = s.run_length(s.source_segment(), rsi, s.remaining(), false);
        n = n ? s.run_length(es, rdi, n, true) : 0;
        std::uint64_t const from = s.linear(s.source_segment(), rsi), to = s.linear(es, rdi);
        T* const source = n ? host<T>(s.c.engine.bank->read, from, n) : nullptr;
        T* const target = source ? host<T>(s.c.engine.bank->write, to, n) : nullptr;
        if (target) {
            copy_elements(target, source, n);
        } else {
            T value;
            if (!s.check(s.source_segment(), rsi, false) || !load(s.c, from, value)) return;
            if (!s.check(es, rdi, true) || !store(s.c, to, value)) return;
            n = 1;
        }
        s.advance(rsi, n);
        s.advance(rdi, n);
        s.count_down(n);
        if (!s.proceed()) return;
    }
}

// --- STOS

template <class T> void fill_elements(T* to, T value, std::uint64_t n) {
    std::uint8_t const byte = std::uint8_t(value);
    T repeated;
    std::memset(&repeated, byte, sizeof(T));
    if (repeated == value)
        std::memset(to, byte, n * sizeof(T));
    else
        for (std::uint64_t i = 0; i < n; ++i) std::memcpy(to + i, &value, sizeof(T));
}

template <class T> void store_strings(StringRun& s) {
    T const value = T(s.c.state.gpr[rax]);
    while (s.remaining()) {
        std::uint64_t n = s.run_length(es, rdi, s.remaining(), true);
        std::uint64_t const to = s.linear(es, rdi);
        if (T* target = n ? host<T>(s.c.engine.bank->write, to, n) : nullptr) {
            fill_elements(target, value, n);
        } else {
            if (!s.check(es, rdi, true) || !store(s.c, to, value)) return;
            n = 1;
        }
        s.advance(rdi, n);
        s.count_down(n);
        if (!s.proceed()) return;
    }
}

// --- LODS: only the last element matters, but each access may fault

template <class T> void set_accumulator(X86Context& c, T value) {
    std::uint64_t& full = c.state.gpr[rax];
    if constexpr (sizeof(T) >= 4)
        full = value;
    else
        full = (full & ~std::uint64_t(T(~T(0)))) | value;
}

template <class T> void load_strings(StringRun& s) {
    while (s.remaining()) {
        T value;
        if (!s.check(s.source_segment(), rsi, false)) return;
        if (!load(s.c, s.linear(s.source_segment(), rsi), value)) return;
        set_accumulator(s.c, value);
        s.advance(rsi, 1);
        s.count_down(1);
        if (!s.proceed()) return;
    }
}

// --- CMPS, SCAS

template <class T> void set_compare_flags(X86Context& c, T first, T second) {
    c.engine.cc_op = cc_op(CcKind::sub, unsigned(std::countr_zero(sizeof(T))));
    c.engine.cc_res = T(first - second);
    c.engine.cc_src = second;
}

// A fault in REP CMPS and SCAS leaves the flags of before the instruction (SDM vol. 2, REP).
class KeepFlagsOnFault {
public:
    explicit KeepFlagsOnFault(X86Context& c)
        : c_(c), op_(c.engine.cc_op), result_(c.engine.cc_res), source_(c.engine.cc_src) {}
    ~KeepFlagsOnFault() {
        if (c_.faulted()) c_.engine.cc_op = op_, c_.engine.cc_res = result_, c_.engine.cc_src = source_;
    }
    KeepFlagsOnFault(KeepFlagsOnFault const&) = delete;
    KeepFlagsOnFault& operator=(KeepFlagsOnFault const&) = delete;

private:
    X86Context& c_;
    std::uint32_t op_;
    std::uint64_t result_, source_;
};

// Elements compared in host memory until the condition ends the repetition; at least one.
template <class T, class First> std::uint64_t compare_run(StringRun& s, First first, T const* second, std::uint64_t n) {
    bool const while_equal = s.op.repeat == Repeat::rep;
    std::uint64_t i = 0;
    while (i + 1 < n && (first(i) == get(second + i)) == while_equal) ++i;
    set_compare_flags<T>(s.c, first(i), get(second + i));
    return i + 1;
}

// Whether the flags of the last comparison end the repetition.
template <class T> bool finished(StringRun const& s) {
    bool const equal = T(s.c.engine.cc_res) == 0;
    return equal != (s.op.repeat == Repeat::rep);
}

template <class T> void compare_strings(StringRun& s) {
    while (s.remaining()) {
        Seg const segment = s.source_segment();
        std::uint64_t n = s.run_length(segment, rsi, s.remaining(), false);
        n = n ? s.run_length(es, rdi, n, false) : 0;
        std::uint64_t const a = s.linear(segment, rsi), b = s.linear(es, rdi);
        T const* const first = n ? host<T>(s.c.engine.bank->read, a, n) : nullptr;
        T const* const second = first ? host<T>(s.c.engine.bank->read, b, n) : nullptr;
        if (second) {
            n = compare_run<T>(
                s, [&](std::uint64_t i) { return get(first + i); }, second, n);
        } else {
            T x, y;
            if (!s.check(es, rdi, false) || !load(s.c, b, y)) return; // first, as on hardware
            if (!s.check(segment, rsi, false) || !load(s.c, a, x)) return;
            set_compare_flags(s.c, x, y);
            n = 1;
        }
        s.advance(rsi, n);
        s.advance(rdi, n);
        s.count_down(n);
        if (finished<T>(s) || !s.proceed()) return;
    }
}

template <class T> void scan_strings(StringRun& s) {
    T const wanted = T(s.c.state.gpr[rax]);
    while (s.remaining()) {
        std::uint64_t n = s.run_length(es, rdi, s.remaining(), false);
        std::uint64_t const at = s.linear(es, rdi);
        if (T const* there = n ? host<T>(s.c.engine.bank->read, at, n) : nullptr) {
            n = compare_run<T>(
                s, [&](std::uint64_t) { return wanted; }, there, n);
        } else {
            T value;
            if (!s.check(es, rdi, false) || !load(s.c, at, value)) return;
            set_compare_flags(s.c, wanted, value);
            n = 1;
        }
        s.advance(rdi, n);
        s.count_down(n);
        if (finished<T>(s) || !s.proceed()) return;
    }
}

// --- What most executions are in 64-bit code: ascending, few bytes, in one page at each end, of which the TLB knows

// The bytes to work on, or 0: something else.
std::uint64_t quick_bytes(X86Context const& c, StringOp op) {
    std::uint64_t const n = c.state.gpr[rcx];
    return n <= string_page_bytes && !(c.state.rflags & flag::df) ? n * op.bytes : 0;
}

void* in_page(std::array<TlbEntry, TlbBank::entries> const& table, std::uint64_t va, std::uint64_t bytes) {
    return bytes <= string_page_bytes ? tlb_lookup(table, va, unsigned(bytes)) : nullptr;
}

bool quick_movs(X86Context& c, StringOp op) {
    std::uint64_t const bytes = quick_bytes(c, op), to = c.state.gpr[rdi];
    if (!bytes) return false;
    auto* target = static_cast<std::uint8_t*>(in_page(c.engine.bank->write, to, bytes));
    if (!target) return false;
    std::uint64_t const from = segment_linear(c, Seg(op.segment), c.state.gpr[rsi]);
    auto const* source = static_cast<std::uint8_t const*>(in_page(c.engine.bank->read, from, bytes));
    if (!source || std::uintptr_t(target - source) < bytes) return false;
    std::memmove(target, source, bytes);
    c.state.gpr[rdi] += bytes;
    c.state.gpr[rsi] += bytes;
    c.state.gpr[rcx] = 0;
    return true;
}

bool quick_stos(X86Context& c, StringOp op) {
    std::uint64_t const bytes = quick_bytes(c, op), to = c.state.gpr[rdi];
    if (!bytes) return false;
    void* target = in_page(c.engine.bank->write, to, bytes);
    std::uint64_t const value = c.state.gpr[rax];
    if (!target || (op.bytes > 1 && value != 0)) return false;
    std::memset(target, int(value & 0xff), bytes);
    c.state.gpr[rdi] += bytes;
    c.state.gpr[rcx] = 0;
    return true;
}

} // namespace

namespace helper {

std::uint64_t rep_movs64(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (quick_movs(c, StringOp::from(a))) return 1;
    StringRun s(c, a, 0);
    by_element(a, [&]<class T>(T) { move_strings<T>(s); });
    return !s.remaining();
}
std::uint64_t rep_stos64(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (quick_stos(c, StringOp::from(a))) return 1;
    StringRun s(c, a, 0);
    by_element(a, [&]<class T>(T) { store_strings<T>(s); });
    return !s.remaining();
}

std::uint64_t rep_movs(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    StringRun s(c, a, b);
    return by_element(a, [&]<class T>(T) { move_strings<T>(s); });
}
std::uint64_t rep_stos(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    StringRun s(c, a, b);
    return by_element(a, [&]<class T>(T) { store_strings<T>(s); });
}
std::uint64_t rep_lods(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    StringRun s(c, a, b);
    return by_element(a, [&]<class T>(T) { load_strings<T>(s); });
}
std::uint64_t rep_cmps(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    StringRun s(c, a, b);
    KeepFlagsOnFault keep(c);
    return by_element(a, [&]<class T>(T) { compare_strings<T>(s); });
}
std::uint64_t rep_scas(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    StringRun s(c, a, b);
    KeepFlagsOnFault keep(c);
    return by_element(a, [&]<class T>(T) { scan_strings<T>(s); });
}

} // namespace helper
} // namespace vmm::tcg::x86
