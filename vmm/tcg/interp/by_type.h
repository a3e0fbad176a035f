// Choosing an instantiation of a handler template by an instruction's type.
#pragma once
#include "vmm/tcg/interp/code.h"

#include <cstdint>

// The value of the expression behind `t`, in which U is the unsigned integer of that type; null for a type that is no integer.
// clang-format off
#define BY_TYPE(t, ...)                                                                                                      \
    [&]() -> Handler {                                                                                                       \
        switch (t) {                                                                                                         \
        case Type::i8: { using U = std::uint8_t; return __VA_ARGS__; }                                                       \
        case Type::i16: { using U = std::uint16_t; return __VA_ARGS__; }                                                     \
        case Type::i32: { using U = std::uint32_t; return __VA_ARGS__; }                                                     \
        case Type::i64: { using U = std::uint64_t; return __VA_ARGS__; }                                                     \
        default: return nullptr;                                                                                             \
        }                                                                                                                    \
    }()
// clang-format on
