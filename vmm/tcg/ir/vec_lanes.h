// Private to the vec_*.cpp files: lanes of a 128-bit operand as C++ arrays, and the shape of an operation.
#pragma once
#include "vmm/tcg/ir/vec_ops.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>

namespace vmm::tcg::ir::vec {

// Defines the operation called `name`; see VecFn for the parameters.
#define VEC_FN(name)                                                                                                   \
    void name([[maybe_unused]] void* r, [[maybe_unused]] void const* a, [[maybe_unused]] void const* b,                \
              [[maybe_unused]] void const* c, [[maybe_unused]] std::uint8_t imm, [[maybe_unused]] VecEnv& env)
#define VEC(name, prefix, map, opcode, w, encodings, form, memory, feature, traits) VEC_FN(name);
#include "vmm/tcg/ir/vec_ops.inc"
#undef VEC

using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

template <class T> inline constexpr unsigned count = 16 / sizeof(T);
template <class T> using Lanes = std::array<T, 16 / sizeof(T)>;

template <class T> Lanes<T> load(void const* p) {
    Lanes<T> v;
    std::memcpy(&v, p, 16);
    return v;
}
template <class T> void store(void* p, Lanes<T> const& v) { std::memcpy(p, &v, 16); }
template <class T> T load_one(void const* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store_gpr(void* p, u64 v) { std::memcpy(p, &v, 8); }

// r[i] = f(a[i]), r[i] = f(a[i], b[i])
template <class T, class F> void map1(void* r, void const* a, F f) {
    auto x = load<T>(a);
    for (auto& e : x) e = T(f(e));
    store(r, x);
}
template <class T, class F> void map2(void* r, void const* a, void const* b, F f) {
    auto x = load<T>(a), y = load<T>(b);
    for (unsigned i = 0; i < count<T>; i++) x[i] = T(f(x[i], y[i]));
    store(r, x);
}
template <class To, class From> To saturate(From v) {
    constexpr From low = From(std::numeric_limits<To>::min()), high = From(std::numeric_limits<To>::max());
    return To(v < low ? low : v > high ? high : v);
}

} // namespace vmm::tcg::ir::vec
