// Random IR programs for comparing back ends, from the op table: operands biased to boundaries, undefined flags masked.
#pragma once
#include "vmm/tcg/ir/ir.h"

#include <cstdint>
#include <map>
#include <random>

namespace vmm::tcg::test {

struct RandomProgram {
    std::map<std::int32_t, ir::Block> blocks;
    std::int32_t start = 0;
};
struct RandomOptions {
    bool memory = true, vectors = true, calls = true;
    unsigned max_instructions = 12, max_blocks = 4;
};
RandomProgram random_program(std::mt19937_64& random, RandomOptions const& options);
// A 64-bit value of the kinds that go wrong.
std::uint64_t interesting(std::mt19937_64& random);

} // namespace vmm::tcg::test
