// Integer vector arithmetic, logic, comparisons and shifts.
#include "vmm/tcg/ir/vec_lanes.h"

#include <bit>
#include <cstdlib>

namespace vmm::tcg::ir::vec {

#define MAP2(name, T, expression)                                                                                      \
    VEC_FN(name) {                                                                                                     \
        map2<T>(r, a, b, [](T x, T y) { return expression; });                                                         \
    }

// clang-format off
MAP2(paddb, u8, x + y) MAP2(paddw, u16, x + y) MAP2(paddd, u32, x + y) MAP2(paddq, u64, x + y)
MAP2(psubb, u8, x - y) MAP2(psubw, u16, x - y) MAP2(psubd, u32, x - y) MAP2(psubq, u64, x - y)
MAP2(paddsb, i8, saturate<i8>(x + y)) MAP2(paddsw, i16, saturate<i16>(x + y))
MAP2(paddusb, u8, saturate<u8>(x + y)) MAP2(paddusw, u16, saturate<u16>(x + y))
MAP2(psubsb, i8, saturate<i8>(x - y)) MAP2(psubsw, i16, saturate<i16>(x - y))
MAP2(psubusb, u8, saturate<u8>(x - y)) MAP2(psubusw, u16, saturate<u16>(x - y))
MAP2(pmullw, u16, u32(x) * y) MAP2(pmulhw, i16, (x * y) >> 16) MAP2(pmulhuw, u16, (u32(x) * y) >> 16)
MAP2(pmuludq, u64, (x & 0xffffffff) * (y & 0xffffffff)) MAP2(pmuldq, i64, i64(i32(x)) * i32(y))
MAP2(pmulld, u32, x * y) MAP2(pmulhrsw, i16, ((x * y >> 14) + 1) >> 1)
MAP2(pavgb, u8, (x + y + 1) >> 1) MAP2(pavgw, u16, (x + y + 1) >> 1)
MAP2(pminub, u8, x < y ? x : y) MAP2(pmaxub, u8, x > y ? x : y)
MAP2(pminsw, i16, x < y ? x : y) MAP2(pmaxsw, i16, x > y ? x : y)
MAP2(pminsb, i8, x < y ? x : y) MAP2(pmaxsb, i8, x > y ? x : y)
MAP2(pminsd, i32, x < y ? x : y) MAP2(pmaxsd, i32, x > y ? x : y)
MAP2(pminuw, u16, x < y ? x : y) MAP2(pmaxuw, u16, x > y ? x : y)
MAP2(pminud, u32, x < y ? x : y) MAP2(pmaxud, u32, x > y ? x : y)
MAP2(pcmpeqb, u8, x == y ? ~0 : 0) MAP2(pcmpeqw, u16, x == y ? ~0 : 0)
MAP2(pcmpeqd, u32, x == y ? ~0u : 0) MAP2(pcmpeqq, u64, x == y ? ~u64(0) : 0)
MAP2(pcmpgtb, i8, x > y ? ~0 : 0) MAP2(pcmpgtw, i16, x > y ? ~0 : 0)
MAP2(pcmpgtd, i32, x > y ? ~0 : 0) MAP2(pcmpgtq, i64, x > y ? ~i64(0) : 0)
MAP2(pand, u64, x & y) MAP2(pandn, u64, ~x & y) MAP2(por, u64, x | y) MAP2(pxor, u64, x ^ y)
MAP2(psignb, u8, i8(y) < 0 ? -x : y == 0 ? 0 : x) MAP2(psignw, u16, i16(y) < 0 ? -x : y == 0 ? 0 : x)
MAP2(psignd, u32, i32(y) < 0 ? 0 - x : y == 0 ? 0 : x)
// clang-format on
#undef MAP2

                                                                                                    VEC_FN(pabsb) {
    map1<u8>(r, a, [](u8 x) { return i8(x) < 0 ? -x : x; });
}
VEC_FN(pabsw) {
    map1<u16>(r, a, [](u16 x) { return i16(x) < 0 ? -x : x; });
}
VEC_FN(pabsd) {
    map1<u32>(r, a, [](u32 x) { return i32(x) < 0 ? 0 - x : x; });
}

VEC_FN(pmaddwd) {
    auto x = load<i16>(a), y = load<i16>(b);
    Lanes<u32> out;
    for (unsigned i = 0; i < 4; i++) out[i] = u32(x[2 * i] * y[2 * i]) + u32(x[2 * i + 1] * y[2 * i + 1]);
    store(r, out);
}
VEC_FN(pmaddubsw) {
    auto x = load<u8>(a);
    auto y = load<i8>(b);
    Lanes<i16> out;
    for (unsigned i = 0; i < 8; i++) out[i] = saturate<i16>(x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1]);
    store(r, out);
}
VEC_FN(psadbw) {
    auto x = load<u8>(a), y = load<u8>(b);
    Lanes<u64> out{};
    for (unsigned i = 0; i < 16; i++) out[i / 8] += u64(std::abs(x[i] - y[i]));
    store(r, out);
}
VEC_FN(mpsadbw) {
    unsigned control = unsigned(imm) >> (3 * env.lane);
    auto x = load<u8>(a), y = load<u8>(b);
    unsigned from = (control >> 2 & 1) * 4, block = (control & 3) * 4;
    Lanes<u16> out{};
    for (unsigned i = 0; i < 8; i++)
        for (unsigned k = 0; k < 4; k++) out[i] = u16(out[i] + std::abs(x[from + i + k] - y[block + k]));
    store(r, out);
}
VEC_FN(phminposuw) {
    auto x = load<u16>(a);
    unsigned best = 0;
    for (unsigned i = 1; i < 8; i++)
        if (x[i] < x[best]) best = i;
    store(r, Lanes<u16>{x[best], u16(best)});
}

// Pairs of neighbours of a, then of b.
template <class T, class F> static void horizontal(void* r, void const* a, void const* b, F f) {
    auto x = load<T>(a), y = load<T>(b);
    Lanes<T> out;
    constexpr unsigned half = count<T> / 2;
    for (unsigned i = 0; i < half; i++) {
        out[i] = T(f(x[2 * i], x[2 * i + 1]));
        out[half + i] = T(f(y[2 * i], y[2 * i + 1]));
    }
    store(r, out);
}
VEC_FN(phaddw) {
    horizontal<u16>(r, a, b, [](u16 x, u16 y) { return x + y; });
}
VEC_FN(phaddd) {
    horizontal<u32>(r, a, b, [](u32 x, u32 y) { return x + y; });
}
VEC_FN(phaddsw) {
    horizontal<i16>(r, a, b, [](i16 x, i16 y) { return saturate<i16>(x + y); });
}
VEC_FN(phsubw) {
    horizontal<u16>(r, a, b, [](u16 x, u16 y) { return x - y; });
}
VEC_FN(phsubd) {
    horizontal<u32>(r, a, b, [](u32 x, u32 y) { return x - y; });
}
VEC_FN(phsubsw) {
    horizontal<i16>(r, a, b, [](i16 x, i16 y) { return saturate<i16>(x - y); });
}

// --- shifts: counts at or over the lane's width give zeros (sign bits for arithmetic ones)
template <class T> static T shift_left(T x, u64 n) { return n < sizeof(T) * 8 ? T(x << n) : T(0); }
template <class T> static T shift_right(T x, u64 n) { return n < sizeof(T) * 8 ? T(x >> n) : T(0); }
template <class T> static T shift_arithmetic(T x, u64 n) { return T(x >> (n < sizeof(T) * 8 ? n : sizeof(T) * 8 - 1)); }

#define SHIFT(name, T, function)                                                                                       \
    VEC_FN(name) {                                                                                                     \
        u64 n = load_one<u64>(b);                                                                                      \
        map1<T>(r, a, [n](T x) { return function<T>(x, n); });                                                         \
    }                                                                                                                  \
    VEC_FN(name##_i) {                                                                                                 \
        map1<T>(r, a, [imm](T x) { return function<T>(x, imm); });                                                     \
    }
SHIFT(psllw, u16, shift_left)
SHIFT(pslld, u32, shift_left)
SHIFT(psllq, u64, shift_left)
SHIFT(psrlw, u16, shift_right)
SHIFT(psrld, u32, shift_right)
SHIFT(psrlq, u64, shift_right)
SHIFT(psraw, i16, shift_arithmetic)
SHIFT(psrad, i32, shift_arithmetic)
#undef SHIFT

VEC_FN(vpsllvd) {
    map2<u32>(r, a, b, [](u32 x, u32 n) { return shift_left<u32>(x, n); });
}
VEC_FN(vpsllvq) {
    map2<u64>(r, a, b, [](u64 x, u64 n) { return shift_left<u64>(x, n); });
}
VEC_FN(vpsrlvd) {
    map2<u32>(r, a, b, [](u32 x, u32 n) { return shift_right<u32>(x, n); });
}
VEC_FN(vpsrlvq) {
    map2<u64>(r, a, b, [](u64 x, u64 n) { return shift_right<u64>(x, n); });
}
VEC_FN(vpsravd) {
    map2<i32>(r, a, b, [](i32 x, i32 n) { return shift_arithmetic<i32>(x, u32(n)); });
}

VEC_FN(pslldq_i) {
    auto x = load<u8>(a);
    Lanes<u8> out{};
    for (unsigned i = imm; i < 16; i++) out[i] = x[i - imm];
    store(r, out);
}
VEC_FN(psrldq_i) {
    auto x = load<u8>(a);
    Lanes<u8> out{};
    for (unsigned i = 0; i + imm < 16; i++) out[i] = x[i + imm];
    store(r, out);
}

// --- comparisons that set flags
namespace {
struct TestBits {
    bool both = false, only_b = false; // a & b, ~a & b have a bit of interest
};
TestBits test_bits(void const* a, void const* b, unsigned bytes, u64 mask) {
    TestBits t;
    for (unsigned i = 0; i < bytes; i += 8) {
        u64 x = load_one<u64>(static_cast<char const*>(a) + i), y = load_one<u64>(static_cast<char const*>(b) + i);
        t.both |= (x & y & mask) != 0;
        t.only_b |= (~x & y & mask) != 0;
    }
    return t;
}
u64 test_flags(TestBits t) { return u64(!t.both) << 6 | u64(!t.only_b); }
constexpr u64 sign_bits_32 = 0x8000000080000000, sign_bits_64 = 0x8000000000000000;
} // namespace
VEC_FN(ptest) { env.flags = test_flags(test_bits(a, b, 16, ~u64(0))); }
VEC_FN(ptest_y) { env.flags = test_flags(test_bits(a, b, 32, ~u64(0))); }
VEC_FN(vtestps) { env.flags = test_flags(test_bits(a, b, 16, sign_bits_32)); }
VEC_FN(vtestps_y) { env.flags = test_flags(test_bits(a, b, 32, sign_bits_32)); }
VEC_FN(vtestpd) { env.flags = test_flags(test_bits(a, b, 16, sign_bits_64)); }
VEC_FN(vtestpd_y) { env.flags = test_flags(test_bits(a, b, 32, sign_bits_64)); }

} // namespace vmm::tcg::ir::vec
