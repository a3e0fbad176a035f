// The code generator against the interpreter: random IR programs, every visible result; and its instruments.
#include "ir_machine.h"
#include "random_ir.h"
#include "vmm/tcg/interp/interpreter.h"
#include "vmm/tcg/ir/passes.h"
#include "vmm/tcg/ir/text.h"
#include "vmm/tcg/x64/backend.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

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

TEST(X64Backend, torture_changes_no_result) {
    compare({}, 700000, 2000, 16, true,
            {.cache_bytes = x64::min_cache_bytes, .unlink_one_in = 2, .refuse_one_in = 2, .seed = 5});
}

// A block of `n` additions that goes on at `next`.
ir::Block additions(unsigned n, std::int32_t next) {
    ir::Block block;
    ir::Builder b(block);
    for (unsigned i = 0; i < n; ++i) {
        b.emit({.op = ir::Opcode::insn_start, .aux = 4, .imm = 4 * std::int64_t(i)});
        b.put(ir::Type::i64, gpr_slot(0),
              b.binary(ir::Opcode::add, ir::Type::i64, b.get(ir::Type::i64, gpr_slot(0)),
                       b.constant(ir::Type::i64, std::int64_t(i) + 1000), true));
    }
    block.guest_insns = std::uint16_t(n), block.guest_bytes = std::uint16_t(4 * n);
    block.terminal = ir::Jump{.target = next};
    return block;
}

struct Jit {
    explicit Jit(x64::Options options = {.cache_bytes = x64::min_cache_bytes}) : machine(jit(options), 16) {}
    IrMachine machine;
    x64::X64Backend& backend = static_cast<x64::X64Backend&>(*machine.backend);
};

TEST(X64Backend, code_never_takes_more_than_the_cache_it_was_given) {
    Jit j;
    std::vector<std::unique_ptr<Translation>> made;
    for (unsigned rounds = 0; rounds < 3; ++rounds) {
        for (;;) {
            auto translation = j.backend.translate(additions(100, 0xf00));
            BackendStatistics s = j.backend.statistics();
            EXPECT_LE(s.cache_used, s.cache_size);
            EXPECT_EQ(s.cache_size, x64::min_cache_bytes);
            if (!translation) break;
            made.push_back(std::move(translation));
        }
        EXPECT_GT(made.size(), 100u);
        made.clear(); // what the owner does then
        EXPECT_NE(j.backend.translate(additions(100, 0xf00)), nullptr);
        EXPECT_GT(j.backend.statistics().resets, rounds);
    }
}

TEST(X64Backend, refusals_of_torture_come_only_while_there_is_something_to_destroy) {
    Jit j({.cache_bytes = x64::min_cache_bytes, .refuse_one_in = 1});
    auto first = j.backend.translate(additions(1, 0xf00));
    ASSERT_NE(first, nullptr);
    EXPECT_EQ(j.backend.translate(additions(1, 0xf00)), nullptr);
    first.reset();
    EXPECT_NE(j.backend.translate(additions(1, 0xf00)), nullptr);
}

TEST(X64Backend, executions_are_counted_when_profiling) {
    Jit j({.cache_bytes = x64::min_cache_bytes, .profile = true});
    j.machine.run({{0, additions(3, 0xf00)}}, 0);
    ASSERT_NE(j.machine.translations[0], nullptr);
    EXPECT_EQ(j.machine.translations[0]->executions, 1u);
    j.machine.run({{0, additions(3, 0xf00)}}, 0);
    EXPECT_EQ(j.machine.translations[0]->executions, 2u);
}

TEST(X64Backend, listings_name_each_guest_instruction) {
    Jit j;
    ir::Block block = additions(2, 0xf00);
    block.address = 0x7000;
    auto translation = j.backend.translate(block);
    std::string text = j.backend.disassemble_last();
    std::size_t first = text.find("-- guest addr 0x00007000\n"), second = text.find("-- guest addr 0x00007004\n"),
                end = text.find("-- block end\n"), slow = text.find("-- slow paths\n");
    EXPECT_LT(first, second);
    EXPECT_LT(second, end);
    EXPECT_LT(end, slow);
    EXPECT_NE(slow, std::string::npos) << text;
    translation.reset();
    EXPECT_EQ(j.backend.disassemble_last(), "");
}

TEST(X64Backend, perf_map_names_blocks_by_guest_address) {
    std::string const path = fmt::format("/tmp/perf-{}.map", getpid());
    {
        Jit j({.cache_bytes = x64::min_cache_bytes, .perf_map = true});
        ir::Block block = additions(2, 0xf00);
        block.address = 0xffff800000001000;
        auto translation = j.backend.translate(block);
    }
    std::ifstream in(path);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    std::remove(path.c_str());
    EXPECT_NE(text.find(" jit_thunks\n"), std::string::npos) << text;
    EXPECT_NE(text.find(" guest_ffff800000001000\n"), std::string::npos) << text;
}

} // namespace
} // namespace vmm::tcg
