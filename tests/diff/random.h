// Random: the seeded source of everything a sequence is made of, with values near where arithmetic turns.
#pragma once
#include <cstdint>

namespace vmm::diff {

class Random {
public:
    // Mixed, so that neighbouring seeds are not the same stream shifted by one.
    explicit Random(std::uint64_t seed) : state_(mix(seed ^ 0x5851f42d4c957f2d)) {}
    std::uint64_t bits() { return mix(state_ += 0x9e3779b97f4a7c15); }
    unsigned pick(unsigned n) { return unsigned((bits() >> 32) * n >> 32); } // 0..n-1
    bool chance(unsigned in) { return pick(in) == 0; }
    // Integers, many of them at the borders of their widths.
    std::uint64_t value();
    // Floating-point images: ordinary numbers, denormals, infinities, NaNs, pairs of floats.
    std::uint64_t floating();

private:
    // SplitMix64: a sequence needs few numbers, and a large generator's start would cost more than running it.
    static std::uint64_t mix(std::uint64_t z) {
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    std::uint64_t state_;
};

} // namespace vmm::diff
