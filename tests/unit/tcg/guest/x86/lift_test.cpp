// Instructions and the IR they lift to: lift_golden.txt has cases "== mode | bytes | assembly" followed by the expected
// IR. VMM_UPDATE_GOLDEN=1 rewrites it with what the lifter gives now, to be read in review.
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/ir_names.h"
#include "vmm/tcg/guest/x86/lift.h"
#include "vmm/tcg/ir/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace {

using namespace vmm;
using namespace vmm::tcg::x86;

Mode mode_named(std::string const& name) {
    using M = Mode;
    std::uint64_t const sse = M::osfxsr | M::osxmmexcpt | M::avx, p = M::protected_mode, user = M::cpl_mask;
    if (name == "64") return {M::code64 | p | M::long_mode | sse};
    if (name == "64-user") return {M::code64 | p | M::long_mode | sse | user};
    if (name == "32-flat") return {M::code32 | M::stack32 | p | M::flat | sse};
    if (name == "32-segmented") return {M::code32 | M::stack32 | p};
    if (name == "16-protected") return {M::code16 | p};
    if (name == "v86") return {M::code16 | M::vm86 | user};
    EXPECT_EQ(name, "real");
    return {M::code16};
}

x86::CpuModel model(char const* name) {
    std::vector<std::string> warnings;
    return *x86::make_cpu_model(name, x86::tcg_features(), warnings);
}

struct Code {
    std::vector<std::uint8_t> page = std::vector<std::uint8_t>(4096, 0x90);
    explicit Code(std::string const& hex, unsigned offset = 0) {
        std::istringstream in(hex);
        for (unsigned v; in >> std::hex >> v;) page[offset++] = std::uint8_t(v);
    }
};

std::string lifted(std::string const& mode, std::string const& hex) {
    Code const code(hex);
    unsigned const bytes = unsigned(std::count(hex.begin(), hex.end(), ' ')) + 1;
    tcg::ir::Block all, block;
    unsigned insns = 0;
    do { // as many instructions as the bytes hold
        if (lift_block(mode_named(mode), model("max"), {code.page.data(), nullptr, 0}, {.max_insns = ++insns}, all) !=
            LiftStatus::ok)
            return "needs the next page\n";
        block = all;
    } while (block.guest_bytes < bytes && block.guest_insns == insns);
    EXPECT_EQ(tcg::ir::verify(block), std::nullopt);
    X86Names const names;
    return tcg::ir::to_text(block, &names);
}

TEST(Lift, instructions_become_the_ir_on_file) {
    std::ifstream in(LIFT_GOLDEN);
    ASSERT_TRUE(in) << LIFT_GOLDEN;
    std::string updated, expected, heading, ir, line;
    unsigned cases = 0;
    auto finish = [&] {
        if (heading.empty()) return;
        EXPECT_EQ(ir, expected) << heading;
        updated += heading + "\n" + ir;
        ++cases;
    };
    while (std::getline(in, line)) {
        if (!line.starts_with("== ")) {
            if (!line.empty()) expected += line + "\n";
            continue;
        }
        finish();
        heading = line, expected.clear();
        std::size_t const first = line.find(" | "), second = line.find(" | ", first + 1);
        ASSERT_NE(second, std::string::npos) << line;
        ir = lifted(line.substr(3, first - 3), line.substr(first + 3, second - first - 3));
    }
    finish();
    EXPECT_GE(cases, 40u);
    if (std::getenv("VMM_UPDATE_GOLDEN")) std::ofstream(LIFT_GOLDEN) << updated;
}

std::string single(Mode mode, x86::CpuModel const& cpu, Code const& code, unsigned offset = 0) {
    tcg::ir::Block block;
    EXPECT_EQ(lift_block(mode, cpu, {code.page.data(), code.page.data(), offset}, {.max_insns = 1}, block),
              LiftStatus::ok);
    X86Names const names;
    return tcg::ir::to_text(block, &names);
}

bool is_undefined(std::string const& text) {
    return text.find("imm=6\n") != std::string::npos && text.find("raise_exception") != std::string::npos;
}

TEST(Lift, instructions_the_cpu_model_lacks_are_undefined) {
    Mode const mode = mode_named("64");
    for (char const* hex : {"f3 0f b8 c1" /* popcnt */, "0f 38 f0 00" /* movbe */, "c4 e2 70 f2 c2" /* andn */,
                            "66 0f 38 dc c1" /* aesenc */, "0f c7 f0" /* rdrand */}) {
        EXPECT_FALSE(is_undefined(single(mode, model("max"), Code(hex)))) << hex;
        x86::CpuModel bare = model("max");
        bare.words = {};
        EXPECT_TRUE(is_undefined(single(mode, bare, Code(hex)))) << hex;
    }
}

TEST(Lift, encodings_with_an_older_meaning_keep_it_without_the_extension) {
    x86::CpuModel cpu = model("max");
    cpu.set(x86::Feature::abm, false);
    cpu.set(x86::Feature::bmi1, false);
    EXPECT_NE(single(mode_named("64"), cpu, Code("f3 0f bd c1")).find("bsr.i32"), std::string::npos);
    EXPECT_NE(single(mode_named("64"), cpu, Code("f3 0f bc c1")).find("bsf.i32"), std::string::npos);
}

TEST(Lift, lock_is_for_memory_read_modify_write_forms_only) {
    auto const max = model("max");
    EXPECT_FALSE(is_undefined(single(mode_named("64"), max, Code("f0 01 08"))));
    for (char const* hex : {"f0 01 c8", "f0 8b 00", "f0 90", "f0 3b 00", "f0 0f a3 08"})
        EXPECT_TRUE(is_undefined(single(mode_named("64"), max, Code(hex)))) << hex;
}

TEST(Lift, more_than_fifteen_bytes_are_a_general_protection_fault) {
    std::string const text =
        single(mode_named("64"), model("max"), Code("66 66 66 66 66 66 66 66 66 66 66 66 66 66 90 90"));
    EXPECT_EQ(text.find("raise_exception"), std::string::npos) << "15 bytes are fine";
    std::string const fault =
        single(mode_named("64"), model("max"), Code("66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90"));
    EXPECT_NE(fault.find("imm=13\n"), std::string::npos);
}

TEST(Lift, an_instruction_across_the_page_end_is_a_block_of_its_own) {
    Code code("b8 01 02", 4093); // mov eax, imm32; the last two bytes are the next page's
    tcg::ir::Block block;
    auto const cpu = model("max");
    Mode const mode = mode_named("64");
    EXPECT_EQ(lift_block(mode, cpu, {code.page.data(), nullptr, 4093}, {}, block), LiftStatus::needs_next_page);
    std::vector<std::uint8_t> const next(4096, 0x33);
    EXPECT_EQ(lift_block(mode, cpu, {code.page.data(), next.data(), 4093}, {}, block), LiftStatus::ok);
    EXPECT_TRUE(block.crosses_page);
    EXPECT_EQ(block.guest_insns, 1);
    EXPECT_EQ(block.guest_bytes, 5);
    // Before it a block ends.
    EXPECT_EQ(lift_block(mode, cpu, {code.page.data(), next.data(), 4090}, {}, block), LiftStatus::ok);
    EXPECT_EQ(block.guest_insns, 3);
    EXPECT_FALSE(block.crosses_page);
}

} // namespace
