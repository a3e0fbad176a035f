// Arithmetic on sizes and offsets that come from a guest or a file: nothing wraps silently.
#pragma once
#include <concepts>
#include <cstdint>
#include <optional>

namespace vmm {

template <std::integral T> constexpr std::optional<T> checked_add(T a, T b) {
    T r;
    if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
    return r;
}
template <std::integral T> constexpr std::optional<T> checked_mul(T a, T b) {
    T r;
    if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
    return r;
}
// a / b rounded up; b != 0. Does not overflow.
template <std::unsigned_integral T> constexpr T div_ceil(T a, T b) { return a / b + (a % b != 0); }
// alignment is a power of two. align_up wraps to 0 past the last multiple; check the input first where that can happen.
template <std::unsigned_integral T> constexpr T align_down(T value, T alignment) { return value & ~(alignment - 1); }
template <std::unsigned_integral T> constexpr T align_up(T value, T alignment) {
    return (value + (alignment - 1)) & ~(alignment - 1);
}
constexpr bool is_power_of_two(std::uint64_t v) { return v != 0 && (v & (v - 1)) == 0; }

inline constexpr std::uint64_t KiB = 1024, MiB = 1024 * KiB, GiB = 1024 * MiB, TiB = 1024 * GiB;

} // namespace vmm
