#include "tests/diff/random.h"

#include <cstring>
#include <iterator>

namespace vmm::diff {

std::uint64_t Random::value() {
    static constexpr std::uint64_t edges[] = {0,
                                              1,
                                              2,
                                              0x7f,
                                              0x80,
                                              0xff,
                                              0x100,
                                              0x7fff,
                                              0x8000,
                                              0xffff,
                                              0x7fffffff,
                                              0x80000000,
                                              0xffffffff,
                                              0x7fffffffffffffff,
                                              0x8000000000000000,
                                              ~0ull,
                                              31,
                                              32,
                                              63,
                                              64};
    switch (pick(4)) {
    case 0: return edges[pick(std::size(edges))];
    case 1: return edges[pick(std::size(edges))] + pick(5) - 2;
    case 2: return pick(256);
    default: return bits();
    }
}

std::uint64_t Random::floating() {
    static constexpr double edges[] = {
        0.0, -0.0,  1.0,  -1.0,         0.5,   1e308, -1e308, 5e-324, 2.2250738585072014e-308,
        3.5, -7.25, 1e16, 2147483647.5, 9.3e18};
    std::uint64_t image;
    switch (pick(6)) {
    case 0: {
        double d = edges[pick(std::size(edges))];
        std::memcpy(&image, &d, 8);
        return image;
    }
    case 1: return chance(2) ? 0x7ff0000000000000 : 0xfff0000000000000;
    case 2: return 0x7ff8000000000000 | bits() >> 20;
    case 3: return 0x7ff0000000000001 | bits() >> 20;
    case 4: {
        float f[2] = {float(edges[pick(std::size(edges))]), float(double(std::int64_t(bits())) / 1e10)};
        std::memcpy(&image, f, 8);
        return image;
    }
    default: {
        double d = double(std::int64_t(bits())) / double(1 + pick(1000000));
        std::memcpy(&image, &d, 8);
        return image;
    }
    }
}

} // namespace vmm::diff
