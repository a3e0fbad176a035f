// Clock: what time it is, in nanoseconds, for whoever is handed one.
#pragma once
#include <cstdint>

namespace vmm {

using Nanoseconds = std::int64_t;
inline constexpr Nanoseconds nanoseconds_per_second = 1'000'000'000;

// Monotonic unless said otherwise. Any thread.
class Clock {
public:
    virtual ~Clock() = default;
    virtual Nanoseconds now() const = 0;
};

} // namespace vmm
