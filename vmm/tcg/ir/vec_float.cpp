// Floating-point vector operations, on the host's own SSE unit under the guest's MXCSR: exact by construction (NaN
// propagation, min/max, integer indefinite, flags). Needs an x86-64 host with SSE4.1.
#include "vmm/tcg/ir/vec_lanes.h"

#include <emmintrin.h>

namespace vmm::tcg::ir::vec {

namespace {

constexpr u32 csr_flags = 0x3f, csr_all_masked = 0x1f80, csr_control = 0xe040; // control: RC, FTZ, DAZ

// Runs what it surrounds with the guest's rounding, FTZ and DAZ, all exceptions masked; collects the flags.
class GuestMxcsr {
public:
    explicit GuestMxcsr(VecEnv& env) : env_(env) {
        asm volatile("stmxcsr %0" : "=m"(host_));
        u32 guest = (env.mxcsr & csr_control) | csr_all_masked;
        asm volatile("ldmxcsr %0" ::"m"(guest) : "memory");
    }
    ~GuestMxcsr() {
        u32 after;
        asm volatile("stmxcsr %0" : "=m"(after)::"memory");
        asm volatile("ldmxcsr %0" ::"m"(host_));
        env_.mxcsr |= after & csr_flags;
    }
    GuestMxcsr(GuestMxcsr const&) = delete;
    GuestMxcsr& operator=(GuestMxcsr const&) = delete;
    // Forgets flags raised so far.
    static void drop_flags(u32 env_mxcsr) {
        u32 guest = (env_mxcsr & csr_control) | csr_all_masked;
        asm volatile("ldmxcsr %0" ::"m"(guest) : "memory");
    }

private:
    VecEnv& env_;
    u32 host_;
};

__m128i get(void const* p) { return _mm_loadu_si128(static_cast<__m128i const*>(p)); }
void put(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }

} // namespace

// The operand order of the instruction decides which NaN survives: inline assembly keeps it.
#define HOST_BINARY(name)                                                                                              \
    VEC_FN(name) {                                                                                                     \
        __m128i x = get(a), y = get(b);                                                                                \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile(#name " %1, %0" : "+x"(x) : "x"(y));                                                          \
        }                                                                                                              \
        put(r, x);                                                                                                     \
    }
#define HOST_UNARY(name)                                                                                               \
    VEC_FN(name) {                                                                                                     \
        __m128i x = get(a), out;                                                                                       \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile(#name " %1, %0" : "=x"(out) : "x"(x));                                                        \
        }                                                                                                              \
        put(r, out);                                                                                                   \
    }
// clang-format off
HOST_BINARY(addps) HOST_BINARY(addpd) HOST_BINARY(addss) HOST_BINARY(addsd)
HOST_BINARY(mulps) HOST_BINARY(mulpd) HOST_BINARY(mulss) HOST_BINARY(mulsd)
HOST_BINARY(subps) HOST_BINARY(subpd) HOST_BINARY(subss) HOST_BINARY(subsd)
HOST_BINARY(minps) HOST_BINARY(minpd) HOST_BINARY(minss) HOST_BINARY(minsd)
HOST_BINARY(divps) HOST_BINARY(divpd) HOST_BINARY(divss) HOST_BINARY(divsd)
HOST_BINARY(maxps) HOST_BINARY(maxpd) HOST_BINARY(maxss) HOST_BINARY(maxsd)
HOST_UNARY(sqrtps) HOST_UNARY(sqrtpd) HOST_BINARY(sqrtss) HOST_BINARY(sqrtsd)
HOST_UNARY(rsqrtps) HOST_BINARY(rsqrtss) HOST_UNARY(rcpps) HOST_BINARY(rcpss)
HOST_BINARY(haddps) HOST_BINARY(haddpd) HOST_BINARY(hsubps) HOST_BINARY(hsubpd) HOST_BINARY(addsubps) HOST_BINARY(addsubpd)
HOST_UNARY(cvtdq2ps) HOST_UNARY(cvtps2dq) HOST_UNARY(cvttps2dq)
HOST_UNARY(cvtpd2ps) HOST_UNARY(cvtpd2dq) HOST_UNARY(cvttpd2dq)
HOST_BINARY(cvtss2sd) HOST_BINARY(cvtsd2ss);
// clang-format on

// Widening: four results (256 bits) from the low four elements.
#define HOST_WIDEN(name)                                                                                               \
    VEC_FN(name) {                                                                                                     \
        __m128i low, high = _mm_setzero_si128();                                                                       \
        if (env.bytes == 32) {                                                                                         \
            __m128i x = get(a), upper = _mm_srli_si128(x, 8);                                                          \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile(#name " %2, %0\n\t" #name " %3, %1" : "=&x"(low), "=&x"(high) : "x"(x), "x"(upper));          \
        } else {                                                                                                       \
            __m128i x = get(a);                                                                                        \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile(#name " %1, %0" : "=x"(low) : "x"(x));                                                        \
        }                                                                                                              \
        put(r, low);                                                                                                   \
        if (env.bytes == 32) put(static_cast<char*>(r) + 16, high);                                                    \
    }
HOST_WIDEN(cvtdq2pd);
HOST_WIDEN(cvtps2pd);

// Narrowing of a 256-bit source.
#define HOST_NARROW(name)                                                                                              \
    VEC_FN(name##_y) {                                                                                                 \
        alignas(16) char low[16], high[16];                                                                            \
        name(low, a, b, c, imm, env);                                                                                  \
        name(high, static_cast<char const*>(a) + 16, b, c, imm, env);                                                  \
        std::memcpy(r, low, 8);                                                                                        \
        std::memcpy(static_cast<char*>(r) + 8, high, 8);                                                               \
    }
HOST_NARROW(cvtpd2ps);
HOST_NARROW(cvtpd2dq);
HOST_NARROW(cvttpd2dq);

// To and from general registers.
#define HOST_FROM_GPR(name, instruction, T)                                                                            \
    VEC_FN(name) {                                                                                                     \
        __m128i x = get(a);                                                                                            \
        T y = load_one<T>(b);                                                                                          \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile(instruction " %1, %0" : "+x"(x) : "r"(y));                                                    \
        }                                                                                                              \
        put(r, x);                                                                                                     \
    }
HOST_FROM_GPR(cvtsi2ss, "cvtsi2ssl", u32);
HOST_FROM_GPR(cvtsi2ss_q, "cvtsi2ssq", u64);
HOST_FROM_GPR(cvtsi2sd, "cvtsi2sdl", u32);
HOST_FROM_GPR(cvtsi2sd_q, "cvtsi2sdq", u64);
#define HOST_TO_GPR(name, T)                                                                                           \
    VEC_FN(name) {                                                                                                     \
        __m128i x = _mm_loadl_epi64(static_cast<__m128i const*>(a));                                                   \
        T out;                                                                                                         \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile(HOST_INSTRUCTION " %1, %0" : "=r"(out) : "x"(x));                                             \
        }                                                                                                              \
        store_gpr(r, out);                                                                                             \
    }
#define HOST_INSTRUCTION "cvtss2si"
HOST_TO_GPR(cvtss2si, u32);
HOST_TO_GPR(cvtss2si_q, u64);
#undef HOST_INSTRUCTION
#define HOST_INSTRUCTION "cvttss2si"
HOST_TO_GPR(cvttss2si, u32);
HOST_TO_GPR(cvttss2si_q, u64);
#undef HOST_INSTRUCTION
#define HOST_INSTRUCTION "cvtsd2si"
HOST_TO_GPR(cvtsd2si, u32);
HOST_TO_GPR(cvtsd2si_q, u64);
#undef HOST_INSTRUCTION
#define HOST_INSTRUCTION "cvttsd2si"
HOST_TO_GPR(cvttsd2si, u32);
HOST_TO_GPR(cvttsd2si_q, u64);
#undef HOST_INSTRUCTION

// Flags-setting compares: unordered ZF PF CF = 111, less 001, greater 000, equal 100.
#define HOST_COMPARE(name)                                                                                             \
    VEC_FN(name) {                                                                                                     \
        __m128i x = _mm_loadl_epi64(static_cast<__m128i const*>(a));                                                   \
        __m128i y = _mm_loadl_epi64(static_cast<__m128i const*>(b));                                                   \
        bool zf, pf, cf;                                                                                               \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile(#name " %4, %3" : "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf) : "x"(x), "x"(y));                    \
        }                                                                                                              \
        env.flags = u64(cf) | u64(pf) << 2 | u64(zf) << 6;                                                             \
    }
HOST_COMPARE(ucomiss);
HOST_COMPARE(ucomisd);
HOST_COMPARE(comiss);
HOST_COMPARE(comisd);

// --- compares with a predicate: bits lt, eq, gt, unordered -> true, and which predicates signal on quiet NaNs
namespace {
enum : u8 { lt = 1, eq = 2, gt = 4, un = 8 };
constexpr u8 predicate_truth[16] = {
    eq,      lt,      lt | eq,      un, lt | gt | un, eq | gt | un, gt | un, lt | eq | gt,
    eq | un, lt | un, lt | eq | un, 0,  lt | gt,      eq | gt,      gt,      lt | eq | gt | un};
constexpr u16 signalling = 0x6666;
bool signals(unsigned predicate) { return (signalling >> (predicate & 15) & 1) != (predicate >> 4 & 1); }
__m128i select_truth(unsigned predicate, __m128i less, __m128i equal, __m128i unordered) {
    u8 truth = predicate_truth[predicate & 15];
    __m128i greater = _mm_andnot_si128(_mm_or_si128(_mm_or_si128(less, equal), unordered), _mm_set1_epi32(-1));
    __m128i out = _mm_setzero_si128();
    if (truth & lt) out = _mm_or_si128(out, less);
    if (truth & eq) out = _mm_or_si128(out, equal);
    if (truth & gt) out = _mm_or_si128(out, greater);
    if (truth & un) out = _mm_or_si128(out, unordered);
    return out;
}
} // namespace
#define HOST_PREDICATE(suffix)                                                                                         \
    VEC_FN(cmp##suffix) {                                                                                              \
        __m128i x = get(a), y = get(b), less = x, equal = x, unordered = x;                                            \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile("cmplt" #suffix " %1, %0" : "+x"(less) : "x"(y));                                             \
            if (!signals(imm)) GuestMxcsr::drop_flags(env.mxcsr);                                                      \
            asm volatile("cmpeq" #suffix " %1, %0" : "+x"(equal) : "x"(y));                                            \
            asm volatile("cmpunord" #suffix " %1, %0" : "+x"(unordered) : "x"(y));                                     \
        }                                                                                                              \
        __m128i out = select_truth(imm, less, equal, unordered);                                                       \
        merge_compared_##suffix(r, x, out);                                                                            \
    }
static void merge_compared_ps(void* r, __m128i, __m128i v) { put(r, v); }
static void merge_compared_pd(void* r, __m128i, __m128i v) { put(r, v); }
static void merge_compared_ss(void* r, __m128i a, __m128i v) {
    put(r, _mm_castps_si128(_mm_move_ss(_mm_castsi128_ps(a), _mm_castsi128_ps(v))));
}
static void merge_compared_sd(void* r, __m128i a, __m128i v) {
    put(r, _mm_castpd_si128(_mm_move_sd(_mm_castsi128_pd(a), _mm_castsi128_pd(v))));
}
HOST_PREDICATE(ps);
HOST_PREDICATE(pd);
HOST_PREDICATE(ss);
HOST_PREDICATE(sd);

// --- operations whose host form has an immediate: 16 forms by the bits that matter
#define HOST_CASE(n, text)                                                                                             \
    case n:                                                                                                            \
        asm volatile(text : "+x"(x) : "x"(y), "i"(n));                                                                 \
        break;
#define HOST_CASES(text)                                                                                               \
    HOST_CASE(0, text)                                                                                                 \
    HOST_CASE(1, text)                                                                                                 \
    HOST_CASE(2, text)                                                                                                 \
    HOST_CASE(3, text)                                                                                                 \
    HOST_CASE(4, text)                                                                                                 \
    HOST_CASE(5, text)                                                                                                 \
    HOST_CASE(6, text)                                                                                                 \
    HOST_CASE(7, text)                                                                                                 \
    HOST_CASE(8, text)                                                                                                 \
    HOST_CASE(9, text)                                                                                                 \
    HOST_CASE(10, text)                                                                                                \
    HOST_CASE(11, text)                                                                                                \
    HOST_CASE(12, text)                                                                                                \
    HOST_CASE(13, text)                                                                                                \
    HOST_CASE(14, text)                                                                                                \
    HOST_CASE(15, text)
// One operand.
#define HOST_ROUND(name, first)                                                                                        \
    VEC_FN(name) {                                                                                                     \
        __m128i x = get(a), y = get(first);                                                                            \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            switch (imm & 15) { HOST_CASES(#name " %2, %1, %0") }                                                      \
        }                                                                                                              \
        put(r, x);                                                                                                     \
    }
HOST_ROUND(roundps, a);
HOST_ROUND(roundpd, a);
HOST_ROUND(roundss, b);
HOST_ROUND(roundsd, b);

// Dot products: every product first (imm bits 4-7 choose which count), then sums of pairs, then their sum, copied to
// the lanes of imm bits 0-3.
VEC_FN(dpps) {
    alignas(16) u32 chosen[4], wanted[4];
    for (unsigned i = 0; i < 4; i++) {
        chosen[i] = imm >> (4 + i) & 1 ? ~0u : 0;
        wanted[i] = imm >> i & 1 ? ~0u : 0;
    }
    __m128i x = get(a), y = get(b);
    {
        GuestMxcsr guard(env);
        // Elements that do not count must not raise flags either.
        __m128i keep = get(chosen);
        x = _mm_and_si128(x, keep);
        y = _mm_and_si128(y, keep);
        asm volatile("dpps $0xff, %1, %0" : "+x"(x) : "x"(y));
    }
    put(r, _mm_and_si128(x, get(wanted)));
}
VEC_FN(dppd) {
    alignas(16) u64 chosen[2], wanted[2];
    for (unsigned i = 0; i < 2; i++) {
        chosen[i] = imm >> (4 + i) & 1 ? ~u64(0) : 0;
        wanted[i] = imm >> i & 1 ? ~u64(0) : 0;
    }
    __m128i x = get(a), y = get(b);
    {
        GuestMxcsr guard(env);
        __m128i keep = get(chosen);
        x = _mm_and_si128(x, keep);
        y = _mm_and_si128(y, keep);
        asm volatile("dppd $0x33, %1, %0" : "+x"(x) : "x"(y));
    }
    put(r, _mm_and_si128(x, get(wanted)));
}

// --- half precision (the host must have F16C: the model is cut down to it otherwise)
VEC_FN(cvtph2ps) {
    alignas(16) char in[16], out[32];
    std::memcpy(in, a, 16);
    for (unsigned i = 0; i < env.bytes; i += 16) {
        __m128i x = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(in + i / 2)), y;
        GuestMxcsr guard(env);
        asm volatile("vcvtph2ps %1, %0" : "=x"(y) : "x"(x));
        put(out + i, y);
    }
    std::memcpy(r, out, env.bytes);
}
VEC_FN(cvtps2ph) {
    __m128i x = _mm_setzero_si128(), y = get(a);
    {
        GuestMxcsr guard(env);
        switch (imm & 7) { HOST_CASES("vcvtps2ph %2, %1, %0") }
    }
    put(r, x);
}
VEC_FN(cvtps2ph_y) {
    alignas(16) char low[16], high[16];
    cvtps2ph(low, a, b, c, imm, env);
    cvtps2ph(high, static_cast<char const*>(a) + 16, b, c, imm, env);
    std::memcpy(r, low, 8);
    std::memcpy(static_cast<char*>(r) + 8, high, 8);
}

// --- fused multiply-add (the host must have FMA, likewise)
#define HOST_FUSED(name)                                                                                               \
    VEC_FN(name) {                                                                                                     \
        __m128i x = get(a), y = get(b), z = get(c);                                                                    \
        {                                                                                                              \
            GuestMxcsr guard(env);                                                                                     \
            asm volatile("v" #name " %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));                                          \
        }                                                                                                              \
        put(r, x);                                                                                                     \
    }
// clang-format off
HOST_FUSED(fmadd132ps) HOST_FUSED(fmadd213ps) HOST_FUSED(fmadd231ps) HOST_FUSED(fmadd132pd) HOST_FUSED(fmadd213pd) HOST_FUSED(fmadd231pd) HOST_FUSED(fmadd132ss) HOST_FUSED(fmadd213ss) HOST_FUSED(fmadd231ss) HOST_FUSED(fmadd132sd) HOST_FUSED(fmadd213sd) HOST_FUSED(fmadd231sd)
HOST_FUSED(fmsub132ps) HOST_FUSED(fmsub213ps) HOST_FUSED(fmsub231ps) HOST_FUSED(fmsub132pd) HOST_FUSED(fmsub213pd) HOST_FUSED(fmsub231pd) HOST_FUSED(fmsub132ss) HOST_FUSED(fmsub213ss) HOST_FUSED(fmsub231ss) HOST_FUSED(fmsub132sd) HOST_FUSED(fmsub213sd) HOST_FUSED(fmsub231sd)
HOST_FUSED(fnmadd132ps) HOST_FUSED(fnmadd213ps) HOST_FUSED(fnmadd231ps) HOST_FUSED(fnmadd132pd) HOST_FUSED(fnmadd213pd) HOST_FUSED(fnmadd231pd) HOST_FUSED(fnmadd132ss) HOST_FUSED(fnmadd213ss) HOST_FUSED(fnmadd231ss) HOST_FUSED(fnmadd132sd) HOST_FUSED(fnmadd213sd) HOST_FUSED(fnmadd231sd)
HOST_FUSED(fnmsub132ps) HOST_FUSED(fnmsub213ps) HOST_FUSED(fnmsub231ps) HOST_FUSED(fnmsub132pd) HOST_FUSED(fnmsub213pd) HOST_FUSED(fnmsub231pd) HOST_FUSED(fnmsub132ss) HOST_FUSED(fnmsub213ss) HOST_FUSED(fnmsub231ss) HOST_FUSED(fnmsub132sd) HOST_FUSED(fnmsub213sd) HOST_FUSED(fnmsub231sd)
HOST_FUSED(fmaddsub132ps) HOST_FUSED(fmaddsub213ps) HOST_FUSED(fmaddsub231ps) HOST_FUSED(fmaddsub132pd) HOST_FUSED(fmaddsub213pd) HOST_FUSED(fmaddsub231pd)
HOST_FUSED(fmsubadd132ps) HOST_FUSED(fmsubadd213ps) HOST_FUSED(fmsubadd231ps) HOST_FUSED(fmsubadd132pd) HOST_FUSED(fmsubadd213pd) HOST_FUSED(fmsubadd231pd)
// clang-format on

} // namespace vmm::tcg::ir::vec
