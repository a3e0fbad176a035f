// Any bytes lift to a well-formed block, in every mode. VMM_RANDOM_LIFTS sets how many byte strings (default 100,000).
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/lift.h"
#include "vmm/tcg/ir/passes.h"
#include "vmm/tcg/ir/text.h"
#include "vmm/tcg/ir/verify.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

namespace {

using namespace vmm;
using tcg::x86::Mode;

std::vector<Mode> modes() {
    using M = Mode;
    std::uint64_t const sse = M::osfxsr | M::osxmmexcpt | M::avx, p = M::protected_mode, user = M::cpl_mask;
    return {{M::code64 | p | M::long_mode | sse},
            {M::code64 | p | M::long_mode | sse | user},
            {M::code32 | M::stack32 | p | M::flat | sse},
            {M::code32 | M::stack32 | p | M::flat | sse | user},
            {M::code32 | M::stack32 | p},
            {M::code32 | M::stack32 | p | M::long_mode | M::flat | user | sse},
            {M::code16 | M::stack32 | p},
            {M::code16 | p},
            {M::code16},
            {M::code16 | M::vm86 | user},
            {M::code64 | p | M::long_mode | sse | M::fp_trap | M::single},
            {M::code64 | p | M::long_mode | M::cr0_em | M::cr0_ts}};
}

std::string hex(std::uint8_t const* bytes, unsigned count) {
    std::string text;
    for (unsigned i = 0; i < count; ++i) text += fmt::format("{:02x} ", bytes[i]);
    return text;
}

// Random bytes with a bias to prefixes and the two-byte map, so that long forms come up.
void fill(std::mt19937_64& random, std::uint8_t* bytes, unsigned count) {
    static constexpr std::uint8_t likely[] = {0x0f, 0x66, 0xf2, 0xf3, 0x48, 0x67, 0xf0, 0x2e, 0xc5, 0xc4};
    for (unsigned i = 0; i < count; ++i) {
        bytes[i] = std::uint8_t(random());
        if (i % 5 == 0 && random() % 3 == 0) bytes[i] = likely[random() % std::size(likely)];
    }
}

TEST(LiftRandom, any_bytes_give_a_well_formed_block_that_stays_one_when_optimized) {
    char const* const asked = std::getenv("VMM_RANDOM_LIFTS");
    long const count = asked ? std::atol(asked) : 100000;
    std::mt19937_64 random(20240601);
    std::vector<std::string> warnings;
    auto max = x86::make_cpu_model("max", x86::tcg_features(), warnings);
    auto old = x86::make_cpu_model("qemu64", x86::tcg_features(), warnings);
    ASSERT_TRUE(max.ok() && old.ok());
    std::vector<std::uint8_t> page(4096), next(4096);
    auto const all = modes();
    for (long i = 0; i < count; ++i) {
        unsigned const offset = i % 4 ? unsigned(random() % 4000) : 4080 + unsigned(random() % 16);
        fill(random, page.data() + offset, std::min(96u, 4096 - offset));
        fill(random, next.data(), 16);
        Mode const mode = all[random() % all.size()];
        tcg::ir::Block block;
        auto const status = tcg::x86::lift_block(mode, i % 8 ? *max : *old, {page.data(), next.data(), offset},
                                                 {.max_insns = 1 + unsigned(i) % 16}, block);
        ASSERT_EQ(status, tcg::x86::LiftStatus::ok);
        auto const where = [&] { return fmt::format("mode {:x}: {}", mode.bits, hex(page.data() + offset, 32)); };
        auto problem = tcg::ir::verify(block);
        ASSERT_EQ(problem, std::nullopt) << where() << "\n" << tcg::ir::to_text(block);
        ASSERT_GE(block.guest_insns, 1);
        if (i % 16 == 0) {
            auto again = tcg::ir::parse(tcg::ir::to_text(block));
            ASSERT_TRUE(again.ok()) << again.error().message();
            ASSERT_EQ(tcg::ir::to_text(*again), tcg::ir::to_text(block)) << where();
        }
        tcg::ir::optimize(block);
        problem = tcg::ir::verify(block);
        ASSERT_EQ(problem, std::nullopt) << where() << "\n" << tcg::ir::to_text(block);
    }
}

} // namespace
