// raw against the conformance suite: also the suite's own proof that it runs and can fail.
#include "tests/support/image_conformance.h"

#include <gtest/gtest.h>

using namespace vmm::block;

namespace {

ImageProfile raw_profile(std::uint64_t seed) {
    ImageProfile profile{.format = "raw"};
    profile.grows = profile.shrinks = true;
    profile.seed = seed;
    return profile;
}

TEST(RawConformance, raw_conforms) {
    for (std::uint64_t seed = 1; seed <= 2; ++seed) image_conforms(raw_profile(seed));
}

} // namespace
