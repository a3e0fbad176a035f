// Integer operations and condition codes.
#include "vmm/tcg/interp/by_type.h"

#include <algorithm>
#include <bit>
#include <type_traits>

namespace vmm::tcg::interp {

using namespace ir;
namespace f = x86::flag;

bool condition(EngineContext const& e, Cond cc) {
    // The common questions without a full flags image.
    CcKind kind = CcKind(e.cc_op >> 2);
    if (kind != CcKind::raw) {
        unsigned shift = 64 - (8u << (e.cc_op & 3));
        std::uint64_t res = e.cc_res << shift;
        switch (cc) {
        case Cond::e: return res == 0;
        case Cond::ne: return res != 0;
        case Cond::s: return std::int64_t(res) < 0;
        case Cond::ns: return std::int64_t(res) >= 0;
        default: break;
        }
        if (kind == CcKind::sub) {
            std::uint64_t b = e.cc_src << shift, a = res + b;
            switch (cc) {
            case Cond::b: return a < b;
            case Cond::ae: return a >= b;
            case Cond::be: return a <= b;
            case Cond::a: return a > b;
            case Cond::l: return std::int64_t(a) < std::int64_t(b);
            case Cond::ge: return std::int64_t(a) >= std::int64_t(b);
            case Cond::le: return std::int64_t(a) <= std::int64_t(b);
            case Cond::g: return std::int64_t(a) > std::int64_t(b);
            default: break;
            }
        }
    }
    return cc_holds(cc, cc_image(e));
}

namespace {

template <class U> using S = std::make_signed_t<U>;
template <class U> constexpr unsigned bits = sizeof(U) * 8;
template <class U> constexpr unsigned count_mask = sizeof(U) == 8 ? 63 : 31;

template <class U, Opcode op, bool flags> Code const* binary(EngineContext& e, Code const* c) {
    U a = at<U>(c->a), b = at<U>(c->b), r{};
    if constexpr (op == Opcode::add) {
        r = U(a + b);
        if constexpr (flags) set_cc<U>(e, CcKind::add, r, b);
    } else if constexpr (op == Opcode::sub) {
        r = U(a - b);
        if constexpr (flags) set_cc<U>(e, CcKind::sub, r, b);
    } else if constexpr (op == Opcode::adc) {
        bool cf = carry(e);
        r = U(a + b + cf);
        if constexpr (flags) set_cc<U>(e, cf ? CcKind::adc : CcKind::add, r, b);
    } else if constexpr (op == Opcode::sbb) {
        bool cf = carry(e);
        r = U(a - b - cf);
        if constexpr (flags) set_cc<U>(e, cf ? CcKind::sbb : CcKind::sub, r, b);
    } else {
        if constexpr (op == Opcode::and_) r = a & b;
        else if constexpr (op == Opcode::or_) r = a | b;
        else if constexpr (op == Opcode::xor_) r = a ^ b;
        else if constexpr (op == Opcode::andn) r = U(~a & b);
        if constexpr (flags) set_cc<U>(e, CcKind::logic, r, 0);
    }
    result<U>(c, r);
    return c + 1;
}

// Comparison whose result nobody wants.
template <class U, Opcode op> Code const* compare(EngineContext& e, Code const* c) {
    U a = at<U>(c->a), b = at<U>(c->b);
    if constexpr (op == Opcode::sub) set_cc<U>(e, CcKind::sub, U(a - b), b);
    else set_cc<U>(e, CcKind::logic, U(a & b), 0);
    return c + 1;
}

template <class U, Opcode op, bool flags> Code const* unary(EngineContext& e, Code const* c) {
    U a = at<U>(c->a), r{};
    if constexpr (op == Opcode::inc || op == Opcode::dec) {
        r = op == Opcode::inc ? U(a + 1) : U(a - 1);
        if constexpr (flags) set_cc<U>(e, op == Opcode::inc ? CcKind::inc : CcKind::dec, r, carry(e));
    } else if constexpr (op == Opcode::neg) {
        r = U(0 - a);
        if constexpr (flags) set_cc<U>(e, CcKind::sub, r, a);
    } else if constexpr (op == Opcode::not_) {
        r = U(~a);
    } else if constexpr (op == Opcode::bswap) {
        if constexpr (sizeof(U) == 8) r = __builtin_bswap64(a);
        else if constexpr (sizeof(U) == 4) r = __builtin_bswap32(a);
        else if constexpr (sizeof(U) == 2) r = __builtin_bswap16(a);
    } else if constexpr (op == Opcode::popcnt) {
        r = U(std::popcount(a));
        if constexpr (flags) set_cc_raw(e, a == 0 ? f::zf : 0);
    } else if constexpr (op == Opcode::tzcnt || op == Opcode::lzcnt) {
        r = U(op == Opcode::tzcnt ? std::countr_zero(a) : std::countl_zero(a));
        if constexpr (flags) set_cc_raw(e, (a == 0 ? f::cf : 0) | (r == 0 ? f::zf : 0));
    } else if constexpr (op == Opcode::blsr || op == Opcode::blsi || op == Opcode::blsmsk) {
        r = op == Opcode::blsr ? U(a & (a - 1)) : op == Opcode::blsi ? U(a & (0 - a)) : U(a ^ (a - 1));
        bool cf = op == Opcode::blsi ? a != 0 : a == 0;
        if constexpr (flags) set_cc<U>(e, CcKind::res_co, r, cf);
    }
    result<U>(c, r);
    return c + 1;
}

template <class U, Opcode op, bool flags> Code const* shift(EngineContext& e, Code const* c) {
    U a = at<U>(c->a);
    unsigned n = at<std::uint8_t>(c->b) & count_mask<U>;
    if (n == 0) {
        result<U>(c, a);
        return c + 1;
    }
    // Wide enough for a 31-bit shift of an 8- or 16-bit operand.
    using Wide = std::conditional_t<sizeof(U) == 8, unsigned __int128, std::uint64_t>;
    U r;
    bool cf, of;
    if constexpr (op == Opcode::shl) {
        Wide w = Wide(a) << n;
        r = U(w), cf = w >> bits<U> & 1;
        of = (r >> (bits<U> - 1) & 1) != cf;
    } else if constexpr (op == Opcode::shr) {
        Wide w = a;
        r = U(w >> n), cf = w >> (n - 1) & 1;
        of = a >> (bits<U> - 1) & 1;
        if (n > 1) of = U(r ^ U(r << 1)) >> (bits<U> - 1) & 1;
    } else {
        S<U> s = S<U>(a);
        unsigned m = std::min(n, bits<U> - 1);
        r = U(s >> m);
        cf = n > bits<U> - 1 ? s < 0 : s >> (n - 1) & 1;
        of = false;
    }
    if constexpr (flags) set_cc<U>(e, CcKind::res_co, r, std::uint64_t(cf) | std::uint64_t(of) << 11);
    result<U>(c, r);
    return c + 1;
}

template <class U, Opcode op, bool flags> Code const* rotate(EngineContext& e, Code const* c) {
    U a = at<U>(c->a), r = a;
    unsigned n = at<std::uint8_t>(c->b) & count_mask<U>;
    if (n == 0) {
        result<U>(c, a);
        return c + 1;
    }
    constexpr U top = U(1) << (bits<U> - 1);
    bool cf, of;
    if constexpr (op == Opcode::rol) {
        r = std::rotl(a, int(n % bits<U>));
        cf = r & 1, of = bool(r & top) != cf;
    } else if constexpr (op == Opcode::ror) {
        r = std::rotr(a, int(n % bits<U>));
        cf = r & top, of = bool(r & top) != bool(r & (top >> 1));
    } else {
        n %= bits<U> + 1;
        cf = carry(e);
        for (unsigned i = 0; i < n; ++i) {
            bool out = op == Opcode::rcl ? bool(r & top) : bool(r & 1);
            r = op == Opcode::rcl ? U(r << 1 | U(cf)) : U(U(r >> 1) | (cf ? top : 0));
            cf = out;
        }
        of = op == Opcode::rcl ? bool(r & top) != cf : bool(r & top) != bool(r & (top >> 1));
        if (n == 0) {
            result<U>(c, a);
            return c + 1;
        }
    }
    if constexpr (flags) set_cc_raw(e, (cc_image(e) & ~(f::cf | f::of)) | std::uint64_t(cf) | std::uint64_t(of) << 11);
    result<U>(c, r);
    return c + 1;
}

template <class U, Opcode op, bool flags> Code const* double_shift(EngineContext& e, Code const* c) {
    U a = at<U>(c->a), b = at<U>(c->b), r;
    unsigned n = at<std::uint8_t>(c->c) & count_mask<U>;
    if (n == 0) {
        result<U>(c, a);
        return c + 1;
    }
    bool cf;
    if constexpr (sizeof(U) == 2) {
        // Counts above 16 are undefined; hardware shifts the 32 bits a:b:a (or b:a:b) on.
        std::uint64_t w = op == Opcode::shld ? std::uint64_t(a) << 32 | std::uint64_t(b) << 16 | a : std::uint64_t(a) << 32 | std::uint64_t(b) << 16 | a;
        if constexpr (op == Opcode::shld) {
            r = U(w << n >> 32), cf = w >> (48 - n) & 1;
        } else {
            r = U(w >> n), cf = w >> (n - 1) & 1;
        }
    } else if constexpr (op == Opcode::shld) {
        r = U(a << n | U(b >> (bits<U> - n))), cf = a >> (bits<U> - n) & 1;
    } else {
        r = U(a >> n | U(b << (bits<U> - n))), cf = a >> (n - 1) & 1;
    }
    bool of = (r ^ a) >> (bits<U> - 1) & 1;
    if constexpr (flags) set_cc<U>(e, CcKind::res_co, r, std::uint64_t(cf) | std::uint64_t(of) << 11);
    result<U>(c, r);
    return c + 1;
}

// Products. The high half goes behind the low one (dst + 8), where `high` finds it.
template <class U, Opcode op, bool flags> Code const* multiply(EngineContext& e, Code const* c) {
    constexpr bool is_signed = op != Opcode::umul2;
    using Wide = std::conditional_t<sizeof(U) == 8, std::conditional_t<is_signed, __int128, unsigned __int128>,
                                    std::conditional_t<is_signed, std::int64_t, std::uint64_t>>;
    using N = std::conditional_t<is_signed, S<U>, U>;
    Wide w = Wide(N(at<U>(c->a))) * Wide(N(at<U>(c->b)));
    U low = U(w), high = U(w >> bits<U>);
    bool over = is_signed ? w != Wide(N(low)) : high != 0;
    if constexpr (flags) set_cc<U>(e, CcKind::res_co, low, over ? f::cf | f::of : 0);
    result<U>(c, low);
    if constexpr (op != Opcode::mul) static_cast<std::uint64_t*>(c->dst)[1] = high;
    return c + 1;
}

template <class U, Opcode op> Code const* divide(EngineContext& e, Code const* c) {
    constexpr bool is_signed = op == Opcode::sdiv2;
    using Wide = std::conditional_t<sizeof(U) == 8, unsigned __int128, std::uint64_t>;
    using SWide = std::conditional_t<sizeof(U) == 8, __int128, std::int64_t>;
    Wide n = Wide(at<U>(c->a)) << bits<U> | at<U>(c->b);
    U d = at<U>(c->c), q, r;
    if (d == 0) return e.memory->divide_error(e), nullptr;
    if constexpr (is_signed) {
        SWide sn = SWide(n << (sizeof(Wide) * 8 - 2 * bits<U>)) >> (sizeof(Wide) * 8 - 2 * bits<U>);
        SWide sd = S<U>(d);
        if (sd == -1 && sn == std::numeric_limits<SWide>::min()) return e.memory->divide_error(e), nullptr;
        SWide sq = sn / sd;
        if (sq != SWide(S<U>(sq))) return e.memory->divide_error(e), nullptr;
        q = U(sq), r = U(sn % sd);
    } else {
        Wide wq = n / d;
        if (wq >> bits<U>) return e.memory->divide_error(e), nullptr;
        q = U(wq), r = U(n % d);
    }
    result<U>(c, q);
    static_cast<std::uint64_t*>(c->dst)[1] = r;
    return c + 1;
}

template <class U, Opcode op, bool flags> Code const* scan(EngineContext& e, Code const* c) {
    U a = at<U>(c->a);
    U r = a == 0 ? at<U>(c->b) : U(op == Opcode::bsf ? std::countr_zero(a) : int(bits<U>) - 1 - std::countl_zero(a));
    if constexpr (flags) set_cc_raw(e, a == 0 ? f::zf | f::pf : 0);
    result<U>(c, r);
    return c + 1;
}

template <class U, Opcode op> Code const* bit_test(EngineContext& e, Code const* c) {
    U a = at<U>(c->a);
    unsigned n = unsigned(at<U>(c->b)) & (bits<U> - 1);
    if (c->imm) set_cc_raw(e, (cc_image(e) & ~f::cf) | (a >> n & 1));
    U bit = U(U(1) << n);
    if constexpr (op == Opcode::bts) result<U>(c, a | bit);
    else if constexpr (op == Opcode::btr) result<U>(c, U(a & ~bit));
    else if constexpr (op == Opcode::btc) result<U>(c, a ^ bit);
    return c + 1;
}

template <class U, Opcode op> Code const* deposit_extract(EngineContext& e, Code const* c) {
    U a = at<U>(c->a), b = at<U>(c->b), r = 0;
    if constexpr (op == Opcode::pdep || op == Opcode::pext) {
        unsigned k = 0;
        for (U m = b; m; m = U(m & (m - 1)), ++k) {
            unsigned at_bit = unsigned(std::countr_zero(m));
            if constexpr (op == Opcode::pdep) r |= U(U(a >> k & 1) << at_bit);
            else r |= U(U(a >> at_bit & 1) << k);
        }
    } else if constexpr (op == Opcode::bextr) {
        unsigned start = b & 255, length = b >> 8 & 255;
        r = start >= bits<U> ? 0 : U(a >> start);
        if (length < bits<U>) r &= U((U(1) << length) - 1);
        if (c->imm) set_cc_raw(e, r == 0 ? f::zf : 0);
    } else {
        unsigned n = b & 255;
        r = n < bits<U> ? U(a & U((U(1) << n) - 1)) : a;
        if (c->imm) set_cc<U>(e, CcKind::res_co, r, n >= bits<U>);
    }
    result<U>(c, r);
    return c + 1;
}

template <class To, class From> Code const* extend_zero(EngineContext&, Code const* c) {
    result<To>(c, To(at<From>(c->a)));
    return c + 1;
}
template <class To, class From> Code const* extend_sign(EngineContext&, Code const* c) {
    result<To>(c, To(S<To>(S<From>(at<From>(c->a)))));
    return c + 1;
}
template <class U> Code const* copy(EngineContext&, Code const* c) {
    at<U>(c->dst) = at<U>(c->a);
    return c + 1;
}
template <class U> Code const* copy_value(EngineContext&, Code const* c) {
    result<U>(c, at<U>(c->a));
    return c + 1;
}
struct Lanes16 {
    std::uint64_t q[2];
};
struct Lanes32 {
    std::uint64_t q[4];
};

Code const* pc(EngineContext& e, Code const* c) {
    at<std::uint64_t>(c->dst) = e.pc_base + c->imm;
    return c + 1;
}

// lea: three shapes so that the common ones stay short. imm: displacement; shift in the low bits of c (as a number).
template <class U> Code const* lea_base(EngineContext&, Code const* c) {
    result<U>(c, U(at<U>(c->a) + U(c->imm)));
    return c + 1;
}
template <class U> Code const* lea_index(EngineContext&, Code const* c) {
    result<U>(c, U(at<U>(c->a) + U(at<U>(c->b) << reinterpret_cast<std::uintptr_t>(c->c)) + U(c->imm)));
    return c + 1;
}

template <class U, class Test> Code const* select_nz(EngineContext&, Code const* c) {
    result<U>(c, at<Test>(c->a) ? at<U>(c->b) : at<U>(c->c));
    return c + 1;
}
template <class U> Code const* select_cc(EngineContext& e, Code const* c) {
    result<U>(c, condition(e, Cond(c->imm)) ? at<U>(c->a) : at<U>(c->b));
    return c + 1;
}
Code const* setcc(EngineContext& e, Code const* c) {
    at<std::uint8_t>(c->dst) = condition(e, Cond(c->imm));
    return c + 1;
}
Code const* get_flags(EngineContext& e, Code const* c) {
    std::uint64_t image = cc_image(e);
    set_cc_raw(e, image);
    at<std::uint64_t>(c->dst) = image;
    return c + 1;
}
Code const* put_flags(EngineContext& e, Code const* c) {
    set_cc_raw(e, at<std::uint64_t>(c->a));
    return c + 1;
}
Code const* high(EngineContext&, Code const* c) {
    at<std::uint64_t>(c->dst) = static_cast<std::uint64_t const*>(c->a)[1];
    return c + 1;
}
Code const* fence(EngineContext&, Code const* c) {
    // MFENCE. As an instruction, since ThreadSanitizer knows no fences; guest memory is not what it is to judge anyway.
    asm volatile("mfence" ::: "memory");
    return c + 1;
}

#define FLAGGED(handler, op) (inst.sets_flags ? BY_TYPE(inst.type, handler<U, Opcode::op, true>) : BY_TYPE(inst.type, handler<U, Opcode::op, false>))

Handler extension(Inst const& inst) {
    Type from = Type(inst.aux);
    bool sign = inst.op == Opcode::sext;
    switch (from) {
    case Type::i8: return sign ? BY_TYPE(inst.type, extend_sign<U, std::uint8_t>) : BY_TYPE(inst.type, extend_zero<U, std::uint8_t>);
    case Type::i16: return sign ? BY_TYPE(inst.type, extend_sign<U, std::uint16_t>) : BY_TYPE(inst.type, extend_zero<U, std::uint16_t>);
    case Type::i32: return sign ? BY_TYPE(inst.type, extend_sign<U, std::uint32_t>) : BY_TYPE(inst.type, extend_zero<U, std::uint32_t>);
    default: return nullptr;
    }
}

Handler move(Inst const& inst) {
    if (inst.type == Type::v128) return copy<Lanes16>;
    if (inst.type == Type::v256) return copy<Lanes32>;
    return inst.op == Opcode::put ? BY_TYPE(inst.type, copy<U>) : BY_TYPE(inst.type, copy_value<U>);
}

Handler selection(Inst const& inst) {
    switch (Type(inst.aux)) {
    case Type::i8: return BY_TYPE(inst.type, select_nz<U, std::uint8_t>);
    case Type::i16: return BY_TYPE(inst.type, select_nz<U, std::uint16_t>);
    case Type::i32: return BY_TYPE(inst.type, select_nz<U, std::uint32_t>);
    default: return BY_TYPE(inst.type, select_nz<U, std::uint64_t>);
    }
}

} // namespace

std::uint64_t handler_immediate(Inst const& inst) {
    switch (inst.op) {
    case Opcode::setcc:
    case Opcode::select_cc: return std::uint64_t(inst.cc);
    case Opcode::bt:
    case Opcode::bts:
    case Opcode::btr:
    case Opcode::btc:
    case Opcode::bextr:
    case Opcode::bzhi: return inst.sets_flags;
    default: return std::uint64_t(inst.imm);
    }
}

Handler compare_handler(Inst const& inst) {
    return inst.op == Opcode::sub ? BY_TYPE(inst.type, compare<U, Opcode::sub>) : BY_TYPE(inst.type, compare<U, Opcode::and_>);
}

Handler integer_handler(Inst const& inst) {
    switch (inst.op) {
    case Opcode::constant:
    case Opcode::get:
    case Opcode::put: return move(inst);
    case Opcode::pc: return pc;
    case Opcode::add: return FLAGGED(binary, add);
    case Opcode::adc: return FLAGGED(binary, adc);
    case Opcode::sub: return FLAGGED(binary, sub);
    case Opcode::sbb: return FLAGGED(binary, sbb);
    case Opcode::and_: return FLAGGED(binary, and_);
    case Opcode::or_: return FLAGGED(binary, or_);
    case Opcode::xor_: return FLAGGED(binary, xor_);
    case Opcode::andn: return FLAGGED(binary, andn);
    case Opcode::inc: return FLAGGED(unary, inc);
    case Opcode::dec: return FLAGGED(unary, dec);
    case Opcode::neg: return FLAGGED(unary, neg);
    case Opcode::not_: return FLAGGED(unary, not_);
    case Opcode::shl: return FLAGGED(shift, shl);
    case Opcode::shr: return FLAGGED(shift, shr);
    case Opcode::sar: return FLAGGED(shift, sar);
    case Opcode::rol: return FLAGGED(rotate, rol);
    case Opcode::ror: return FLAGGED(rotate, ror);
    case Opcode::rcl: return FLAGGED(rotate, rcl);
    case Opcode::rcr: return FLAGGED(rotate, rcr);
    case Opcode::shld: return FLAGGED(double_shift, shld);
    case Opcode::shrd: return FLAGGED(double_shift, shrd);
    case Opcode::mul: return FLAGGED(multiply, mul);
    case Opcode::umul2: return FLAGGED(multiply, umul2);
    case Opcode::smul2: return FLAGGED(multiply, smul2);
    case Opcode::udiv2: return BY_TYPE(inst.type, divide<U, Opcode::udiv2>);
    case Opcode::sdiv2: return BY_TYPE(inst.type, divide<U, Opcode::sdiv2>);
    case Opcode::high: return high;
    case Opcode::bswap: return FLAGGED(unary, bswap);
    case Opcode::bsf: return FLAGGED(scan, bsf);
    case Opcode::bsr: return FLAGGED(scan, bsr);
    case Opcode::tzcnt: return FLAGGED(unary, tzcnt);
    case Opcode::lzcnt: return FLAGGED(unary, lzcnt);
    case Opcode::popcnt: return FLAGGED(unary, popcnt);
    case Opcode::blsr: return FLAGGED(unary, blsr);
    case Opcode::blsi: return FLAGGED(unary, blsi);
    case Opcode::blsmsk: return FLAGGED(unary, blsmsk);
    case Opcode::pdep: return BY_TYPE(inst.type, deposit_extract<U, Opcode::pdep>);
    case Opcode::pext: return BY_TYPE(inst.type, deposit_extract<U, Opcode::pext>);
    case Opcode::bextr: return BY_TYPE(inst.type, deposit_extract<U, Opcode::bextr>);
    case Opcode::bzhi: return BY_TYPE(inst.type, deposit_extract<U, Opcode::bzhi>);
    case Opcode::bt: return BY_TYPE(inst.type, bit_test<U, Opcode::bt>);
    case Opcode::bts: return BY_TYPE(inst.type, bit_test<U, Opcode::bts>);
    case Opcode::btr: return BY_TYPE(inst.type, bit_test<U, Opcode::btr>);
    case Opcode::btc: return BY_TYPE(inst.type, bit_test<U, Opcode::btc>);
    case Opcode::zext:
    case Opcode::sext: return extension(inst);
    case Opcode::trunc: return BY_TYPE(inst.type, copy_value<U>);
    case Opcode::lea: return inst.b == none ? BY_TYPE(inst.type, lea_base<U>) : BY_TYPE(inst.type, lea_index<U>);
    case Opcode::select_nz: return selection(inst);
    case Opcode::setcc: return setcc;
    case Opcode::select_cc: return BY_TYPE(inst.type, select_cc<U>);
    case Opcode::get_flags: return get_flags;
    case Opcode::put_flags: return put_flags;
    case Opcode::fence: return fence;
    default: return nullptr;
    }
}

} // namespace vmm::tcg::interp
