// What the IR's read-modify-write operations compute: their one definition in C++.
#pragma once
#include "vmm/tcg/cc.h"
#include "vmm/tcg/ir/ir.h"

#include <cstdint>

namespace vmm::tcg {

// The new value. cf: carry in.
template <class U> constexpr U rmw_value(ir::Opcode op, U old, U b, bool cf) {
    using enum ir::Opcode;
    U bit = U(U(1) << (b & (sizeof(U) * 8 - 1)));
    switch (op) {
    case rmw_add: return U(old + b);
    case rmw_adc: return U(old + b + cf);
    case rmw_sub: return U(old - b);
    case rmw_sbb: return U(old - b - cf);
    case rmw_or: return old | b;
    case rmw_and: return old & b;
    case rmw_xor: return old ^ b;
    case rmw_inc: return U(old + 1);
    case rmw_dec: return U(old - 1);
    case rmw_neg: return U(0 - old);
    case rmw_not: return U(~old);
    case rmw_bts: return old | bit;
    case rmw_btr: return U(old & ~bit);
    case rmw_btc: return old ^ bit;
    default: return b; // rmw_xchg
    }
}

// Condition codes after it, in lazy form. `before`: the flags image before, for operations that keep some.
struct LazyFlags {
    CcKind kind;
    std::uint64_t res, src;
};
template <class U> constexpr LazyFlags rmw_flags(ir::Opcode op, U old, U b, U now, bool cf, std::uint64_t before) {
    using enum ir::Opcode;
    switch (op) {
    case rmw_add: return {CcKind::add, now, b};
    case rmw_adc: return {cf ? CcKind::adc : CcKind::add, now, b};
    case rmw_sub: return {CcKind::sub, now, b};
    case rmw_sbb: return {cf ? CcKind::sbb : CcKind::sub, now, b};
    case rmw_inc: return {CcKind::inc, now, cf};
    case rmw_dec: return {CcKind::dec, now, cf};
    case rmw_neg: return {CcKind::sub, now, old};
    case rmw_bts:
    case rmw_btr:
    case rmw_btc: {
        std::uint64_t bit = old >> (b & (sizeof(U) * 8 - 1)) & 1;
        return {CcKind::raw, 0, (before & ~vmm::x86::flag::cf) | bit};
    }
    default: return {CcKind::logic, now, 0};
    }
}

} // namespace vmm::tcg
