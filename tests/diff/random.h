// Random: the seeded source of everything a sequence is made of, with values near where arithmetic turns.
#pragma once
#include <cstdint>
#include <random>

namespace vmm::diff {

class Random {
public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}
    std::uint64_t bits() { return engine_(); }
    unsigned pick(unsigned n) { return unsigned(engine_() % n); } // 0..n-1
    bool chance(unsigned in) { return pick(in) == 0; }
    // Integers, many of them at the borders of their widths.
    std::uint64_t value();
    // Floating-point images: ordinary numbers, denormals, infinities, NaNs, pairs of floats.
    std::uint64_t floating();

private:
    std::mt19937_64 engine_;
};

} // namespace vmm::diff
