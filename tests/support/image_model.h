// The flat array a conformance run compares an image with, and the seeded choice of what to do next.
#pragma once
#include "tests/support/image_conformance.h"

#include <random>
#include <span>

namespace vmm::block {

// What the image must hold, byte by byte.
struct ImageModel {
    std::vector<std::uint8_t> bytes;
    std::mt19937_64 random;

    explicit ImageModel(std::uint64_t seed) : random(seed) {}
    std::uint64_t below(std::uint64_t limit) { return limit ? random() % limit : 0; }
    bool one_in(unsigned n) { return below(n) == 0; }
    struct Stretch {
        std::uint64_t offset, length;
    };
    // Small or large, aligned or odd; inside the image; length > 0.
    Stretch pick(std::uint64_t max_length);
    std::vector<std::uint8_t> content(std::size_t length);
};

// Fills `model` with what the image reads as now.
Result<void> adopt(BlockBench& bench, BlockDevice& image, ImageModel& model);
// The first differing byte, as a GoogleTest failure naming `what`.
void expect_equal(std::span<std::uint8_t const> found, std::span<std::uint8_t const> expected, std::uint64_t offset,
                  std::string const& what);
// Fails the test unless the image has no check or is found without corruption (leaks too, if `leaks_ok` is false).
void expect_check_clean(BlockBench& bench, Image& image, bool leaks_ok, std::string const& what);

} // namespace vmm::block
