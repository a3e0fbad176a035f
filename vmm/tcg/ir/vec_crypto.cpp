// AES rounds (FIPS 197), carry-less multiplication, SHA-1 and SHA-256 steps (FIPS 180-4), as SDM vol. 2 defines them.
#include "vmm/tcg/ir/vec_lanes.h"

#include <bit>

namespace vmm::tcg::ir::vec {

// --- AES
namespace {

constexpr u8 times2(u8 x) { return u8(x << 1 ^ (x & 0x80 ? 0x1b : 0)); }
constexpr u8 multiply(u8 x, u8 y) {
    u8 product = 0;
    for (; y; y >>= 1, x = times2(x))
        if (y & 1) product ^= x;
    return product;
}
struct SBoxes {
    u8 forward[256]{}, inverse[256]{};
};
constexpr SBoxes make_sboxes() {
    SBoxes s;
    u8 p = 1, q = 1; // p runs through the powers of 3, q through their inverses
    do {
        p = u8(p ^ times2(p));
        q = u8(q ^ q << 1);
        q = u8(q ^ q << 2);
        q = u8(q ^ q << 4);
        if (q & 0x80) q ^= 0x09;
        u8 v = u8(q ^ std::rotl(q, 1) ^ std::rotl(q, 2) ^ std::rotl(q, 3) ^ std::rotl(q, 4) ^ 0x63);
        s.forward[p] = v;
        s.inverse[v] = p;
    } while (p != 1);
    s.forward[0] = 0x63;
    s.inverse[0x63] = 0;
    return s;
}
constexpr SBoxes sboxes = make_sboxes();

using Block = Lanes<u8>; // column-major, as AES wants it

Block shift_rows(Block const& x) {
    Block out;
    for (unsigned i = 0; i < 16; i++) out[i] = x[(i + 4 * (i & 3)) & 15];
    return out;
}
Block inverse_shift_rows(Block const& x) {
    Block out;
    for (unsigned i = 0; i < 16; i++) out[(i + 4 * (i & 3)) & 15] = x[i];
    return out;
}
Block substitute(Block x, u8 const (&table)[256]) {
    for (auto& e : x) e = table[e];
    return x;
}
Block mix_columns(Block const& x, u8 m0, u8 m1, u8 m2, u8 m3) {
    Block out;
    for (unsigned i = 0; i < 16; i++) {
        unsigned column = i & 12;
        auto e = [&](unsigned k) { return x[column + ((i + k) & 3)]; };
        out[i] = u8(multiply(e(0), m0) ^ multiply(e(1), m1) ^ multiply(e(2), m2) ^ multiply(e(3), m3));
    }
    return out;
}
void add_key(void* r, Block x, void const* key) {
    auto k = load<u8>(key);
    for (unsigned i = 0; i < 16; i++) x[i] ^= k[i];
    store(r, x);
}
u32 substitute_word(u32 w) {
    u32 out = 0;
    for (unsigned i = 0; i < 32; i += 8) out |= u32(sboxes.forward[w >> i & 0xff]) << i;
    return out;
}

} // namespace

VEC_FN(aesenc) { add_key(r, mix_columns(substitute(shift_rows(load<u8>(a)), sboxes.forward), 2, 3, 1, 1), b); }
VEC_FN(aesenclast) { add_key(r, substitute(shift_rows(load<u8>(a)), sboxes.forward), b); }
VEC_FN(aesdec) {
    add_key(r, mix_columns(substitute(inverse_shift_rows(load<u8>(a)), sboxes.inverse), 14, 11, 13, 9), b);
}
VEC_FN(aesdeclast) { add_key(r, substitute(inverse_shift_rows(load<u8>(a)), sboxes.inverse), b); }
VEC_FN(aesimc) { store(r, mix_columns(load<u8>(a), 14, 11, 13, 9)); }
VEC_FN(aeskeygenassist) {
    auto x = load<u32>(a);
    u32 w1 = substitute_word(x[1]), w3 = substitute_word(x[3]);
    store(r, Lanes<u32>{w1, std::rotr(w1, 8) ^ imm, w3, std::rotr(w3, 8) ^ imm});
}

// --- PCLMULQDQ
VEC_FN(pclmulqdq) {
    u64 x = load<u64>(a)[imm & 1], y = load<u64>(b)[imm >> 4 & 1], low = 0, high = 0;
    for (unsigned i = 0; i < 64; i++) {
        if (!(y >> i & 1)) continue;
        low ^= x << i;
        if (i) high ^= x >> (64 - i);
    }
    store(r, Lanes<u64>{low, high});
}

// --- SHA. Lane 3 is the first word in the SHA-1 operations.
VEC_FN(sha1nexte) {
    auto x = load<u32>(a), y = load<u32>(b);
    y[3] += std::rotl(x[3], 30);
    store(r, y);
}
VEC_FN(sha1msg1) {
    auto x = load<u32>(a), y = load<u32>(b);
    store(r, Lanes<u32>{x[0] ^ y[2], x[1] ^ y[3], x[2] ^ x[0], x[3] ^ x[1]});
}
VEC_FN(sha1msg2) {
    auto x = load<u32>(a), y = load<u32>(b);
    u32 w16 = std::rotl(x[3] ^ y[2], 1), w17 = std::rotl(x[2] ^ y[1], 1), w18 = std::rotl(x[1] ^ y[0], 1);
    store(r, Lanes<u32>{std::rotl(x[0] ^ w16, 1), w18, w17, w16});
}
VEC_FN(sha1rnds4) {
    static constexpr u32 constants[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    auto x = load<u32>(a), w = load<u32>(b);
    u32 va = x[3], vb = x[2], vc = x[1], vd = x[0], ve = 0;
    for (unsigned i = 0; i < 4; i++) {
        u32 f = (imm & 3) == 0   ? ((vb & vc) ^ (~vb & vd))
                : (imm & 3) == 2 ? ((vb & vc) ^ (vb & vd) ^ (vc & vd))
                                 : (vb ^ vc ^ vd);
        u32 next = f + std::rotl(va, 5) + w[3 - i] + ve + constants[imm & 3];
        ve = vd;
        vd = vc;
        vc = std::rotl(vb, 30);
        vb = va;
        va = next;
    }
    store(r, Lanes<u32>{vd, vc, vb, va});
}
VEC_FN(sha256msg1) {
    auto x = load<u32>(a), y = load<u32>(b), out = x;
    auto sigma0 = [](u32 w) { return std::rotr(w, 7) ^ std::rotr(w, 18) ^ w >> 3; };
    for (unsigned i = 0; i < 4; i++) out[i] = x[i] + sigma0(i < 3 ? x[i + 1] : y[0]);
    store(r, out);
}
VEC_FN(sha256msg2) {
    auto x = load<u32>(a), y = load<u32>(b);
    auto sigma1 = [](u32 w) { return std::rotr(w, 17) ^ std::rotr(w, 19) ^ w >> 10; };
    u32 w16 = x[0] + sigma1(y[2]), w17 = x[1] + sigma1(y[3]);
    store(r, Lanes<u32>{w16, w17, x[2] + sigma1(w16), x[3] + sigma1(w17)});
}
// a: C, D, G, H (lane 3 = C); b: A, B, E, F (lane 3 = A); c: two words with their constants added.
VEC_FN(sha256rnds2) {
    auto x = load<u32>(a), y = load<u32>(b), w = load<u32>(c);
    u32 va = y[3], vb = y[2], vc = x[3], vd = x[2], ve = y[1], vf = y[0], vg = x[1], vh = x[0];
    for (unsigned i = 0; i < 2; i++) {
        u32 t = ((ve & vf) ^ (~ve & vg)) + (std::rotr(ve, 6) ^ std::rotr(ve, 11) ^ std::rotr(ve, 25)) + w[i] + vh;
        u32 next = t + ((va & vb) ^ (va & vc) ^ (vb & vc)) + (std::rotr(va, 2) ^ std::rotr(va, 13) ^ std::rotr(va, 22));
        vh = vg;
        vg = vf;
        vf = ve;
        ve = t + vd;
        vd = vc;
        vc = vb;
        vb = va;
        va = next;
    }
    store(r, Lanes<u32>{vf, ve, vb, va});
}

} // namespace vmm::tcg::ir::vec
