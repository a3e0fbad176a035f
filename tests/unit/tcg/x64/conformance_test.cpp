// The code generator against the interpreter: random IR programs, every visible result.
#include "ir_machine.h"
#include "random_ir.h"
#include "vmm/tcg/interp/interpreter.h"
#include "vmm/tcg/ir/passes.h"
#include "vmm/tcg/ir/text.h"
#include "vmm/tcg/x64/backend.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace vmm::tcg {
namespace {

using namespace test;

std::unique_ptr<Backend> make_interpreter(EngineContext& e, GuestInfo const& g) {
    return std::make_unique<interp::Interpreter>(e, g);
}
IrMachine::MakeBackend jit(x64::Options options = {.cache_bytes = 4u << 20}) {
    return [=](EngineContext& e, GuestInfo const& g) -> std::unique_ptr<Backend> {
        auto made = x64::X64Backend::create(e, g, options);
        return std::move(*made);
    };
}

void fill(IrMachine& m, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (auto& g : m.state.gpr) g = interesting(random);
    for (auto& v : m.state.vec)
        for (auto& q : v) q = interesting(random);
    for (unsigned i = 0; i < 4; ++i) // some sane floating-point numbers
        m.state.vec[i] = {0x3ff8000000000000u + i, 0x4008000000000000, 0xc0123456789abcde, 0x3f8000003f000000};
    for (auto& byte : m.memory) byte = std::uint8_t(random());
    m.state.fuel = 20;
    set_cc_raw(m.state.engine, random());
    m.fill_tlb = seed & 1;
}

struct Outcome {
    std::string end, state;
};
Outcome execute(IrMachine::MakeBackend const& make, RandomProgram const& program, std::uint64_t seed,
                unsigned registers, std::string* code = nullptr) {
    IrMachine m(make, registers);
    fill(m, seed);
    Outcome o;
    o.end = m.run(program.blocks, program.start);
    o.state = m.dump();
    if (code)
        for (auto& [offset, translation] : m.translations)
            if (translation)
                *code += fmt::format("block {:#x}\n", offset) +
                         static_cast<x64::X64Backend&>(*m.backend).disassemble(*translation);
    return o;
}

std::string differences(std::string const& a, std::string const& b) {
    std::string out;
    std::size_t x = 0, y = 0;
    while (x < a.size() && y < b.size()) {
        std::size_t ex = a.find('\n', x), ey = b.find('\n', y);
        if (a.substr(x, ex - x) != b.substr(y, ey - y))
            out += "  interp " + a.substr(x, ex - x) + "\n  jit    " + b.substr(y, ey - y) + "\n";
        x = ex + 1, y = ey + 1;
    }
    return out;
}

// Runs `count` seeds; VMM_TEST_SEED=n runs that one alone and prints its code.
void compare(RandomOptions const& options, unsigned first, unsigned count, unsigned registers, bool optimized,
             x64::Options jit_options = {.cache_bytes = 4u << 20}) {
    char const* only = std::getenv("VMM_TEST_SEED");
    for (unsigned n = 0; n < (only ? 1 : count); ++n) {
        std::uint64_t seed = only ? std::strtoull(only, nullptr, 0) : first + n;
        std::mt19937_64 random(seed);
        RandomProgram program = random_program(random, options);
        if (optimized)
            for (auto& [offset, block] : program.blocks) ir::optimize(block);
        if (char const* cut = std::getenv("VMM_TEST_CUT")) { // "block:instructions": how a failure is narrowed down
            auto& block = program.blocks[std::int32_t(std::strtol(cut, const_cast<char**>(&cut), 0))];
            block.insts.resize(std::size_t(std::atoi(cut + 1)));
            block.terminal = ir::Jump{.target = 0xf00};
        }
        Outcome expected = execute(make_interpreter, program, seed, registers);
        std::string code;
        Outcome got = execute(jit(jit_options), program, seed, registers, only ? &code : nullptr);
        if (only || expected.end != got.end || expected.state != got.state) {
            std::string text;
            for (auto& [offset, block] : program.blocks)
                text += fmt::format("block {:#x}\n{}", offset, ir::to_text(block));
            EXPECT_TRUE(expected.end == got.end && expected.state == got.state)
                << "seed " << seed << "\ninterp: " << expected.end << "\njit: " << got.end << "\n"
                << differences(expected.state, got.state) << text << code;
            if (only) fmt::print("{}{}", text, code);
            return;
        }
    }
}

TEST(X64Backend, random_integer_programs_give_what_the_interpreter_gives) {
    compare({.memory = false, .vectors = false, .calls = false}, 1, 20000, 16, false);
}
TEST(X64Backend, random_programs_with_memory_give_what_the_interpreter_gives) {
    compare({.memory = true, .vectors = false, .calls = true}, 100000, 20000, 16, false);
}
TEST(X64Backend, random_programs_with_vectors_give_what_the_interpreter_gives) {
    compare({}, 200000, 20000, 16, false);
}
TEST(X64Backend, optimised_programs_give_what_the_interpreter_gives) { compare({}, 300000, 10000, 16, true); }
TEST(X64Backend, without_pinned_registers_programs_give_what_the_interpreter_gives) {
    compare({}, 400000, 5000, 0, false);
}
TEST(X64Backend, long_blocks_give_what_the_interpreter_gives) {
    compare({.max_instructions = 60, .max_blocks = 2}, 500000, 3000, 16, true);
}
TEST(X64Backend, without_host_vector_instructions_programs_give_what_the_interpreter_gives) {
    compare({.memory = false}, 600000, 5000, 16, false, {.cache_bytes = 4u << 20, .vector_features = 0});
}

} // namespace
} // namespace vmm::tcg
