// Rate: exact conversion between virtual nanoseconds and the ticks of a device's clock.
#pragma once
#include "vmm/base/clock.h"

#include <cstdint>

namespace vmm::dev {

// A clock of `hz` ticks a second that started at virtual time 0. 128-bit arithmetic: nothing drifts or overflows.
struct Rate {
    std::int64_t hz;
    // Ticks completed at `at`.
    constexpr std::int64_t ticks_at(Nanoseconds at) const {
        return std::int64_t(static_cast<__int128>(at) * hz / nanoseconds_per_second);
    }
    // The first nanosecond at which `tick` ticks (>= 0) are completed; saturates at INT64_MAX.
    constexpr Nanoseconds time_of(std::int64_t tick) const {
        __int128 ns = (static_cast<__int128>(tick) * nanoseconds_per_second + hz - 1) / hz;
        return ns > INT64_MAX ? INT64_MAX : Nanoseconds(ns);
    }
};

} // namespace vmm::dev
