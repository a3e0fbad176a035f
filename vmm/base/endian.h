// Integers with a byte order, for structures that lie in files, guest memory or on a wire. Unaligned, trivially
// copyable.
#pragma once
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

namespace vmm {

constexpr std::uint8_t byte_swap(std::uint8_t v) { return v; }
constexpr std::uint16_t byte_swap(std::uint16_t v) { return __builtin_bswap16(v); }
constexpr std::uint32_t byte_swap(std::uint32_t v) { return __builtin_bswap32(v); }
constexpr std::uint64_t byte_swap(std::uint64_t v) { return __builtin_bswap64(v); }

template <std::unsigned_integral T, std::endian Order> class EndianInt {
public:
    constexpr EndianInt() = default;
    constexpr EndianInt(T value) { store(value); }
    constexpr operator T() const { return load(); }
    constexpr EndianInt& operator=(T value) { return store(value), *this; }
    constexpr T load() const {
        T raw = std::bit_cast<T>(bytes_);
        return Order == std::endian::native ? raw : byte_swap(raw);
    }

private:
    struct Bytes {
        unsigned char b[sizeof(T)];
    };
    constexpr void store(T value) {
        bytes_ = std::bit_cast<Bytes>(Order == std::endian::native ? value : byte_swap(value));
    }
    Bytes bytes_{};
};

using le16 = EndianInt<std::uint16_t, std::endian::little>;
using le32 = EndianInt<std::uint32_t, std::endian::little>;
using le64 = EndianInt<std::uint64_t, std::endian::little>;
using be16 = EndianInt<std::uint16_t, std::endian::big>;
using be32 = EndianInt<std::uint32_t, std::endian::big>;
using be64 = EndianInt<std::uint64_t, std::endian::big>;

// Unaligned little-endian access to raw bytes.
template <std::unsigned_integral T> T load_le(void const* from) {
    T raw;
    std::memcpy(&raw, from, sizeof raw);
    return std::endian::native == std::endian::little ? raw : byte_swap(raw);
}
template <std::unsigned_integral T> void store_le(void* to, T value) {
    T raw = std::endian::native == std::endian::little ? value : byte_swap(value);
    std::memcpy(to, &raw, sizeof raw);
}

} // namespace vmm
