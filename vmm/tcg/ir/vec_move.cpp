// Moves, merges, shuffles, packs, blends, widening and lane permutations.
#include "vmm/tcg/ir/vec_lanes.h"

namespace vmm::tcg::ir::vec {

// --- merges and moves
template <class T> static void merge_low(void* r, void const* a, void const* b) {
    auto x = load<T>(a);
    x[0] = load_one<T>(b);
    store(r, x);
}
VEC_FN(movss) { merge_low<u32>(r, a, b); }
VEC_FN(movsd) { merge_low<u64>(r, a, b); }
VEC_FN(movhlps) {
    auto x = load<u64>(a), y = load<u64>(b);
    store(r, Lanes<u64>{y[1], x[1]});
}
VEC_FN(movq) { store(r, Lanes<u64>{load_one<u64>(a), 0}); }
VEC_FN(movd_from_gpr) { store(r, Lanes<u64>{load_one<u32>(b), 0}); }
VEC_FN(movq_from_gpr) { store(r, Lanes<u64>{load_one<u64>(b), 0}); }
VEC_FN(movd_to_gpr) { store_gpr(r, load_one<u32>(a)); }
VEC_FN(movq_to_gpr) { store_gpr(r, load_one<u64>(a)); }
VEC_FN(movsldup) {
    auto x = load<u32>(a);
    store(r, Lanes<u32>{x[0], x[0], x[2], x[2]});
}
VEC_FN(movshdup) {
    auto x = load<u32>(a);
    store(r, Lanes<u32>{x[1], x[1], x[3], x[3]});
}
VEC_FN(movddup) {
    auto x = load_one<u64>(a);
    store(r, Lanes<u64>{x, x});
}

// --- shuffles
VEC_FN(shufps) {
    auto x = load<u32>(a), y = load<u32>(b);
    store(r, Lanes<u32>{x[imm & 3], x[imm >> 2 & 3], y[imm >> 4 & 3], y[imm >> 6]});
}
VEC_FN(shufpd) {
    unsigned control = unsigned(imm) >> (2 * env.lane);
    auto x = load<u64>(a), y = load<u64>(b);
    store(r, Lanes<u64>{x[control & 1], y[control >> 1 & 1]});
}
VEC_FN(pshufd) {
    auto x = load<u32>(a);
    store(r, Lanes<u32>{x[imm & 3], x[imm >> 2 & 3], x[imm >> 4 & 3], x[imm >> 6]});
}
static void shuffle_words(void* r, void const* a, unsigned imm, unsigned first) {
    auto x = load<u16>(a), out = x;
    for (unsigned i = 0; i < 4; i++) out[first + i] = x[first + (imm >> (2 * i) & 3)];
    store(r, out);
}
VEC_FN(pshufhw) { shuffle_words(r, a, imm, 4); }
VEC_FN(pshuflw) { shuffle_words(r, a, imm, 0); }
VEC_FN(pshufb) {
    auto x = load<u8>(a), y = load<u8>(b);
    for (auto& e : y) e = e & 0x80 ? 0 : x[e & 15];
    store(r, y);
}
VEC_FN(palignr) {
    auto high = load<u8>(a), low = load<u8>(b);
    Lanes<u8> out{};
    for (unsigned i = 0; i < 16; i++) {
        unsigned from = i + imm;
        out[i] = from < 16 ? low[from] : from < 32 ? high[from - 16] : u8(0);
    }
    store(r, out);
}
template <class T> static void interleave(void* r, void const* a, void const* b, bool upper) {
    auto x = load<T>(a), y = load<T>(b);
    Lanes<T> out;
    unsigned from = upper ? count<T> / 2 : 0;
    for (unsigned i = 0; i < count<T> / 2; i++) {
        out[2 * i] = x[from + i];
        out[2 * i + 1] = y[from + i];
    }
    store(r, out);
}
VEC_FN(punpcklbw) { interleave<u8>(r, a, b, false); }
VEC_FN(punpcklwd) { interleave<u16>(r, a, b, false); }
VEC_FN(punpckldq) { interleave<u32>(r, a, b, false); }
VEC_FN(punpcklqdq) { interleave<u64>(r, a, b, false); }
VEC_FN(punpckhbw) { interleave<u8>(r, a, b, true); }
VEC_FN(punpckhwd) { interleave<u16>(r, a, b, true); }
VEC_FN(punpckhdq) { interleave<u32>(r, a, b, true); }
VEC_FN(punpckhqdq) { interleave<u64>(r, a, b, true); }
template <class From, class To> static void pack(void* r, void const* a, void const* b) {
    auto x = load<From>(a), y = load<From>(b);
    Lanes<To> out;
    for (unsigned i = 0; i < count<From>; i++) {
        out[i] = saturate<To, From>(x[i]);
        out[count<From> + i] = saturate<To, From>(y[i]);
    }
    store(r, out);
}
VEC_FN(packsswb) { pack<i16, i8>(r, a, b); }
VEC_FN(packuswb) { pack<i16, u8>(r, a, b); }
VEC_FN(packssdw) { pack<i32, i16>(r, a, b); }
VEC_FN(packusdw) { pack<i32, u16>(r, a, b); }

// --- single lanes
template <class T> static void insert(void* r, void const* a, void const* b, unsigned index) {
    auto x = load<T>(a);
    x[index & (count<T> - 1)] = load_one<T>(b);
    store(r, x);
}
VEC_FN(pinsrb) { insert<u8>(r, a, b, imm); }
VEC_FN(pinsrw) { insert<u16>(r, a, b, imm); }
VEC_FN(pinsrd) { insert<u32>(r, a, b, imm); }
VEC_FN(pinsrq) { insert<u64>(r, a, b, imm); }
template <class T> static void extract(void* r, void const* a, unsigned index) {
    store_gpr(r, load<T>(a)[index & (count<T> - 1)]);
}
VEC_FN(pextrb) { extract<u8>(r, a, imm); }
VEC_FN(pextrw) { extract<u16>(r, a, imm); }
VEC_FN(pextrd) { extract<u32>(r, a, imm); }
VEC_FN(pextrq) { extract<u64>(r, a, imm); }
VEC_FN(insertps) {
    auto x = load<u32>(a), y = load<u32>(b);
    x[imm >> 4 & 3] = y[imm >> 6];
    for (unsigned i = 0; i < 4; i++)
        if (imm >> i & 1) x[i] = 0;
    store(r, x);
}

// --- blends
template <class T> static void blend_by_immediate(void* r, void const* a, void const* b, unsigned control) {
    auto x = load<T>(a), y = load<T>(b);
    for (unsigned i = 0; i < count<T>; i++)
        if (control >> i & 1) x[i] = y[i];
    store(r, x);
}
VEC_FN(blendps) { blend_by_immediate<u32>(r, a, b, unsigned(imm) >> (4 * env.lane)); }
VEC_FN(blendpd) { blend_by_immediate<u64>(r, a, b, unsigned(imm) >> (2 * env.lane)); }
VEC_FN(pblendw) { blend_by_immediate<u16>(r, a, b, imm); }
VEC_FN(vpblendd) { blend_by_immediate<u32>(r, a, b, unsigned(imm) >> (4 * env.lane)); }
template <class T> static void blend_by_sign(void* r, void const* a, void const* b, void const* c) {
    auto x = load<T>(a), y = load<T>(b), mask = load<T>(c);
    for (unsigned i = 0; i < count<T>; i++)
        if (mask[i] >> (sizeof(T) * 8 - 1)) x[i] = y[i];
    store(r, x);
}
VEC_FN(pblendvb) { blend_by_sign<u8>(r, a, b, c); }
VEC_FN(blendvps) { blend_by_sign<u32>(r, a, b, c); }
VEC_FN(blendvpd) { blend_by_sign<u64>(r, a, b, c); }

// --- widening: the low lanes of a, as many as fit the result
template <class From, class To> static void widen(void* r, void const* a, unsigned bytes) {
    From in[32 / sizeof(To)];
    To out[32 / sizeof(To)];
    unsigned n = bytes / sizeof(To);
    std::memcpy(in, a, n * sizeof(From));
    for (unsigned i = 0; i < n; i++) out[i] = To(in[i]);
    std::memcpy(r, out, bytes);
}
VEC_FN(pmovsxbw) { widen<i8, i16>(r, a, env.bytes); }
VEC_FN(pmovsxbd) { widen<i8, i32>(r, a, env.bytes); }
VEC_FN(pmovsxbq) { widen<i8, i64>(r, a, env.bytes); }
VEC_FN(pmovsxwd) { widen<i16, i32>(r, a, env.bytes); }
VEC_FN(pmovsxwq) { widen<i16, i64>(r, a, env.bytes); }
VEC_FN(pmovsxdq) { widen<i32, i64>(r, a, env.bytes); }
VEC_FN(pmovzxbw) { widen<u8, u16>(r, a, env.bytes); }
VEC_FN(pmovzxbd) { widen<u8, u32>(r, a, env.bytes); }
VEC_FN(pmovzxbq) { widen<u8, u64>(r, a, env.bytes); }
VEC_FN(pmovzxwd) { widen<u16, u32>(r, a, env.bytes); }
VEC_FN(pmovzxwq) { widen<u16, u64>(r, a, env.bytes); }
VEC_FN(pmovzxdq) { widen<u32, u64>(r, a, env.bytes); }

// --- sign masks
template <class T> static void sign_mask(void* r, void const* a, unsigned bytes) {
    u64 mask = 0;
    for (unsigned i = 0; i < bytes / sizeof(T); i++) {
        T x = load_one<T>(static_cast<char const*>(a) + i * sizeof(T));
        mask |= u64(x >> (sizeof(T) * 8 - 1)) << i;
    }
    store_gpr(r, mask);
}
VEC_FN(movmskps) { sign_mask<u32>(r, a, 16); }
VEC_FN(movmskpd) { sign_mask<u64>(r, a, 16); }
VEC_FN(pmovmskb) { sign_mask<u8>(r, a, 16); }
VEC_FN(movmskps_y) { sign_mask<u32>(r, a, 32); }
VEC_FN(movmskpd_y) { sign_mask<u64>(r, a, 32); }
VEC_FN(pmovmskb_y) { sign_mask<u8>(r, a, 32); }

// --- AVX broadcasts and permutations
template <class T> static void broadcast(void* r, void const* a, unsigned bytes) {
    T x = load_one<T>(a);
    for (unsigned i = 0; i < bytes; i += sizeof(T)) std::memcpy(static_cast<char*>(r) + i, &x, sizeof x);
}
VEC_FN(vbroadcastss) { broadcast<u32>(r, a, env.bytes); }
VEC_FN(vbroadcastsd) { broadcast<u64>(r, a, env.bytes); }
VEC_FN(vpbroadcastb) { broadcast<u8>(r, a, env.bytes); }
VEC_FN(vpbroadcastw) { broadcast<u16>(r, a, env.bytes); }
VEC_FN(vpbroadcastd) { broadcast<u32>(r, a, env.bytes); }
VEC_FN(vpbroadcastq) { broadcast<u64>(r, a, env.bytes); }
VEC_FN(vpermilps) {
    auto x = load<u32>(a);
    map1<u32>(r, b, [&](u32 i) { return x[i & 3]; });
}
VEC_FN(vpermilpd) {
    auto x = load<u64>(a);
    map1<u64>(r, b, [&](u64 i) { return x[i >> 1 & 1]; });
}
VEC_FN(vpermilps_i) { pshufd(r, a, b, c, imm, env); }
VEC_FN(vpermilpd_i) {
    unsigned control = unsigned(imm) >> (2 * env.lane);
    auto x = load<u64>(a);
    store(r, Lanes<u64>{x[control & 1], x[control >> 1 & 1]});
}
VEC_FN(vperm2f128) {
    char out[32];
    for (unsigned half = 0; half < 2; half++) {
        unsigned control = imm >> (4 * half) & 15;
        char const* source = static_cast<char const*>(control & 2 ? b : a) + (control & 1) * 16;
        if (control & 8)
            std::memset(out + 16 * half, 0, 16);
        else
            std::memcpy(out + 16 * half, source, 16);
    }
    std::memcpy(r, out, sizeof out);
}
VEC_FN(vpermd) { // a: the indices, b: the source
    u32 index[8], source[8], out[8];
    std::memcpy(index, a, 32);
    std::memcpy(source, b, 32);
    for (unsigned i = 0; i < 8; i++) out[i] = source[index[i] & 7];
    std::memcpy(r, out, 32);
}
VEC_FN(vpermq) {
    u64 source[4], out[4];
    std::memcpy(source, a, 32);
    for (unsigned i = 0; i < 4; i++) out[i] = source[imm >> (2 * i) & 3];
    std::memcpy(r, out, 32);
}

} // namespace vmm::tcg::ir::vec
