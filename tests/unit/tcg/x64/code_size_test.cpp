// How many host instructions the code generator makes of guest sequences: code_golden.txt has lines "count | bytes |
// assembly" (64-bit user mode), the count without what leads into a block by address and without slow paths. More than
// on file is a failure; VMM_UPDATE_GOLDEN=1 rewrites the file with what is made now.
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/context.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/lift.h"
#include "vmm/tcg/ir/passes.h"
#include "vmm/tcg/x64/backend.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace vmm::tcg {
namespace {

GuestInfo::Helper helper(std::uint16_t id) {
    x86::HelperInfo const& h = x86::helper_info(x86::HelperId(id));
    return {reinterpret_cast<HelperFunction>(reinterpret_cast<void (*)()>(h.function)),
            h.name,
            h.reads,
            h.writes,
            h.faults,
            h.memory,
            h.exits,
            h.pure};
}

struct CodeSize : testing::Test {
    CodeSize() {
        for (unsigned i = 0; i < 16; ++i) slots[i] = std::uint32_t(x86::slot::gpr(i));
        context->engine.fp_control = &context->state.mxcsr;
        GuestInfo guest{.pc = &context->state.rip,
                        .pc_mask = [](EngineContext const&) { return ~std::uint64_t(0); },
                        .helper = helper,
                        .registers = slots};
        auto made = x64::X64Backend::create(context->engine, guest, {.cache_bytes = 4u << 20});
        if (made) backend = std::move(*made);
        std::vector<std::string> warnings;
        model = *vmm::x86::make_cpu_model("max", vmm::x86::tcg_features(), warnings);
    }
    void SetUp() override {
        if (!x64::supported()) GTEST_SKIP() << "this host cannot run generated code";
        ASSERT_NE(backend, nullptr);
    }

    // The listing of the block that the bytes make, up to its slow paths.
    std::string code_of(std::string const& hex) {
        using M = x86::Mode;
        x86::Mode const mode{M::code64 | M::protected_mode | M::long_mode | M::osfxsr | M::osxmmexcpt | M::avx |
                             M::cpl_mask};
        std::vector<std::uint8_t> page(4096, 0x90);
        unsigned bytes = 0;
        std::istringstream in(hex);
        for (unsigned v; in >> std::hex >> v;) page[first + bytes++] = std::uint8_t(v);
        ir::Block block;
        for (unsigned insns = 1; block.guest_bytes < bytes; ++insns) {
            ir::Block longer;
            EXPECT_EQ(x86::lift_block(mode, model, {page.data(), nullptr, first}, {.max_insns = insns}, longer),
                      x86::LiftStatus::ok);
            if (longer.guest_bytes == block.guest_bytes) break; // it ends there
            block = longer;
        }
        EXPECT_EQ(block.guest_bytes, bytes) << hex;
        ir::optimize(block);
        auto translation = backend->translate(block);
        std::string text = backend->disassemble_last();
        return text.substr(0, text.find("  -- slow paths"));
    }

    static constexpr unsigned first = 0x100;
    static constexpr unsigned entry_instructions = 2; // setting pc_base
    std::unique_ptr<x86::X86Context> context = std::make_unique<x86::X86Context>();
    std::array<std::uint32_t, 16> slots{};
    std::unique_ptr<x64::X64Backend> backend;
    vmm::x86::CpuModel model;
};

unsigned instructions(std::string const& listing) {
    std::istringstream in(listing);
    unsigned count = 0;
    for (std::string line; std::getline(in, line);) count += line.starts_with("0x");
    return count;
}

TEST_F(CodeSize, sequences_make_no_more_host_instructions_than_on_file) {
    std::ifstream in(CODE_GOLDEN);
    ASSERT_TRUE(in) << CODE_GOLDEN;
    std::string updated;
    unsigned cases = 0;
    for (std::string line; std::getline(in, line); ++cases) {
        std::size_t first_bar = line.find(" | "), second_bar = line.find(" | ", first_bar + 1);
        ASSERT_NE(second_bar, std::string::npos) << line;
        std::string listing = code_of(line.substr(first_bar + 3, second_bar - first_bar - 3));
        unsigned count = instructions(listing) - entry_instructions;
        unsigned on_file = unsigned(std::stoul(line));
        EXPECT_LE(count, on_file) << line << "\n" << listing;
        if (count < on_file) fmt::print("fewer than on file: {} for {}\n", count, line);
        updated += fmt::format("{}{}\n", count, line.substr(first_bar));
    }
    EXPECT_GE(cases, 40u);
    if (std::getenv("VMM_UPDATE_GOLDEN")) std::ofstream(CODE_GOLDEN) << updated;
}

} // namespace
} // namespace vmm::tcg
