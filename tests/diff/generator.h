// Random instruction sequences whose outcome the architecture defines, apart from flags it keeps account of.
#pragma once
#include "tests/diff/sample.h"

#include <array>
#include <cstdint>

namespace vmm::diff {

// Which kinds of instructions a sequence is made of; a bit set.
enum Family : unsigned {
    integer = 1,
    sse = 2,
    x87 = 4,
    avx = 8, // gathers and masked moves too
    strings = 16,
    garbage = 32,   // random bytes
    control = 64,   // MXCSR, x87 control, environments and images, POPF, stack frames; exceptions unmasked at the start
    flow = 128,     // loops, calls and returns
    legacy32 = 256, // a part of the sequences is 32-bit code in compatibility mode
    everything = 511
};

// What memory is filled with where a sequence is not likely to reach: each starts from another window of it.
struct Backdrop {
    Backdrop();
    std::array<std::uint64_t, 8192> words;
};

// The same seed and families give the same sequence.
Sequence generate(std::uint64_t seed, unsigned families, Backdrop const& backdrop);

} // namespace vmm::diff
