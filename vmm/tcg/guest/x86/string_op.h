// How a REP string instruction is described to its helper.
#pragma once
#include <cstdint>

namespace vmm::tcg::x86 {

enum class Repeat : std::uint8_t { once, rep, repne };

struct StringOp {
    std::uint8_t bytes;         // of an element: 1, 2, 4, 8
    std::uint8_t address_bytes; // of the index and count registers: 2, 4, 8
    std::uint8_t segment;       // of the source at rSI
    Repeat repeat;

    constexpr std::int64_t encode() const {
        return bytes | address_bytes << 8 | segment << 16 | std::int64_t(repeat) << 24;
    }
    static constexpr StringOp from(std::uint64_t v) {
        return {std::uint8_t(v), std::uint8_t(v >> 8), std::uint8_t(v >> 16), Repeat(v >> 24 & 3)};
    }
};

} // namespace vmm::tcg::x86
