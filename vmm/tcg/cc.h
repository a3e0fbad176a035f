// Condition codes from their lazy form: the one definition of what each operation does to the flags.
#pragma once
#include "vmm/cpu/x86/constants.h"
#include "vmm/tcg/context.h"
#include "vmm/tcg/ir/ir.h"

#include <bit>
#include <cstdint>

namespace vmm::tcg {

// CF, PF, AF, ZF, SF, OF at their RFLAGS places.
template <class U> constexpr std::uint64_t cc_image(CcKind kind, U res, U src, std::uint64_t raw_src) {
    namespace f = vmm::x86::flag;
    constexpr unsigned top = sizeof(U) * 8 - 1;
    auto sign_of = [](U v) { return std::uint64_t(v >> top & 1); };
    std::uint64_t image = 0;
    switch (kind) {
    case CcKind::raw: return raw_src & f::arithmetic;
    case CcKind::lahf: return (raw_src >> 8 & f::arithmetic & 0xff) | (raw_src & 1) << 11;
    case CcKind::add:
    case CcKind::adc: {
        U carry = kind == CcKind::adc, x = U(res - src - carry);
        bool cf = carry ? res <= x : res < x;
        image = std::uint64_t(cf) | (std::uint64_t(x ^ src ^ res) & f::af) | sign_of(U(~(x ^ src) & (x ^ res))) << 11;
        break;
    }
    case CcKind::sub:
    case CcKind::sbb: {
        U borrow = kind == CcKind::sbb, x = U(res + src + borrow);
        bool cf = borrow ? x <= src : x < src;
        image = std::uint64_t(cf) | (std::uint64_t(x ^ src ^ res) & f::af) | sign_of(U((x ^ src) & (x ^ res))) << 11;
        break;
    }
    case CcKind::logic: break;
    case CcKind::inc:
        image = (raw_src & 1) | ((res & 0xf) == 0 ? f::af : 0) | (res == U(U(1) << top) ? f::of : 0);
        break;
    case CcKind::dec:
        image = (raw_src & 1) | ((res & 0xf) == 0xf ? f::af : 0) | (res == U((U(1) << top) - 1) ? f::of : 0);
        break;
    case CcKind::res_co: image = raw_src & (f::cf | f::of | f::af); break;
    }
    if (res == 0) image |= f::zf;
    if (sign_of(res)) image |= f::sf;
    if (!(std::popcount(std::uint8_t(res)) & 1)) image |= f::pf;
    return image;
}

inline std::uint64_t cc_image(std::uint32_t op, std::uint64_t res, std::uint64_t src) {
    CcKind kind = CcKind(op >> 2);
    switch (op & 3) {
    case 0: return cc_image<std::uint8_t>(kind, std::uint8_t(res), std::uint8_t(src), src);
    case 1: return cc_image<std::uint16_t>(kind, std::uint16_t(res), std::uint16_t(src), src);
    case 2: return cc_image<std::uint32_t>(kind, std::uint32_t(res), std::uint32_t(src), src);
    default: return cc_image<std::uint64_t>(kind, res, src, src);
    }
}
inline std::uint64_t cc_image(EngineContext const& c) { return cc_image(c.cc_op, c.cc_res, c.cc_src); }
inline void set_cc_raw(EngineContext& c, std::uint64_t image) {
    c.cc_op = cc_op(CcKind::raw, 3);
    c.cc_src = image & vmm::x86::flag::arithmetic;
}

// Whether condition `cc` holds for a flags image.
constexpr bool cc_holds(ir::Cond cc, std::uint64_t image) {
    namespace f = vmm::x86::flag;
    bool sf = image & f::sf, of = image & f::of, zf = image & f::zf, value = false;
    switch (ir::Cond(std::uint8_t(cc) & ~1)) {
    case ir::Cond::o: value = of; break;
    case ir::Cond::b: value = image & f::cf; break;
    case ir::Cond::e: value = zf; break;
    case ir::Cond::be: value = image & (f::cf | f::zf); break;
    case ir::Cond::s: value = sf; break;
    case ir::Cond::p: value = image & f::pf; break;
    case ir::Cond::l: value = sf != of; break;
    default: value = zf || sf != of; break;
    }
    return value != (std::uint8_t(cc) & 1);
}

} // namespace vmm::tcg
