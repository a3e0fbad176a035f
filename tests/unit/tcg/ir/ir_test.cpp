// The IR library: text form, verifier and passes, each as text in, text out.
#include "vmm/tcg/ir/passes.h"
#include "vmm/tcg/ir/text.h"
#include "vmm/tcg/ir/verify.h"

#include <gtest/gtest.h>

namespace {

using namespace vmm::tcg::ir;

Block parsed(std::string_view text) {
    auto block = parse(text);
    EXPECT_TRUE(block.ok()) << (block.ok() ? "" : block.error().message());
    return block.ok() ? *block : Block{};
}

std::string with_frame(std::string_view body) {
    return "block start=0 insns=0 bytes=0\n" + std::string(body) + "  end dispatch\n";
}

// `input` after `pass`, without the frame.
std::string after(void (*pass)(Block&), std::string_view input) {
    Block block = parsed(with_frame(input));
    EXPECT_EQ(verify(block), std::nullopt);
    pass(block);
    EXPECT_EQ(verify(block), std::nullopt);
    std::string text = to_text(block);
    return text.substr(text.find('\n') + 1, text.rfind("  end") - text.find('\n') - 1);
}

TEST(IrText, every_field_and_terminal_round_trips) {
    for (std::string_view terminal :
         {"dispatch", "jump target=-5", "jump target=4100 call return_to=7", "branch cc=le taken=1 not_taken=2",
          "branch_non_zero %1 type=i32 taken=1 not_taken=-2", "indirect %0 kind=ret return_to=0"}) {
        std::string const text = "block start=16 insns=1 bytes=3 crosses=1\n"
                                 "  %0 = constant.i64 imm=-1\n"
                                 "  %1 = load.i32 aligned for_write %0 base=3\n"
                                 "  store.i32 non_temporal %0 %1\n"
                                 "  %3 = rmw_add.i32 flags lock %0 %1\n"
                                 "  %4 = select_cc.i32 %1 %3 cc=np\n"
                                 "  %5 = vec.v128 _ _ %0 vec_op=7 imm=3\n"
                                 "  end " +
                                 std::string(terminal) + "\n";
        EXPECT_EQ(to_text(parsed(text)), text);
    }
}

TEST(IrText, malformed_lines_are_refused_with_their_number) {
    for (std::string_view bad : {"  %1 = constant.i64", "  frob.i64", "  %0 = add.i7", "  %0 = constant.i64 imm=x",
                                 "  end nowhere", "  %0 = constant.i64 %9999999"}) {
        auto block = parse("block start=0 insns=0 bytes=0\n" + std::string(bad) + "\n");
        ASSERT_FALSE(block.ok()) << bad;
        EXPECT_NE(block.error().message().find("line 2"), std::string::npos);
    }
}

TEST(IrVerify, ill_formed_blocks_are_named) {
    std::pair<std::string_view, std::string_view> const cases[] = {
        {"  %0 = add.i64 %0 %0\n", "not defined"},
        {"  %0 = constant.i32\n  %1 = add.i64 %0 %0\n", "type differs"},
        {"  %0 = constant.i64\n  %1 = add.i64 %0\n", "missing"},
        {"  %0 = constant.i64\n  %1 = not.i64 flags %0\n", "may not set flags"},
        {"  %0 = constant.i64\n  %1 = shl.i64 %0 %0\n", "not i8"},
        {"  %0 = constant.i64\n  %1 = umul2.i64 %0 %0\n  %2 = constant.i64\n  %3 = high.i64 %1\n", "high"},
        {"  %0 = constant.i64\n  %1 = zext.i32 %0 aux=3\n", "widening"},
        {"  %0 = constant.i64\n  put.i64 %0\n  %2 = load.i64 %0\n", "may fault after"},
        {"  %0 = constant.i64\n  %1 = add.i64 flags %0 %0\n  store.i64 %0 %1\n", "may fault after"},
        {"  %0 = constant.i8\n  %1 = load.i8 %0\n", "not i64"},
    };
    for (auto [text, expected] : cases) {
        auto problem = verify(parsed(with_frame(text)));
        ASSERT_TRUE(problem) << text;
        EXPECT_NE(problem->find(expected), std::string::npos) << *problem;
    }
}

TEST(IrVerify, a_store_after_the_write_checked_load_of_its_address_may_follow_flags) {
    EXPECT_EQ(verify(parsed(with_frame("  %0 = constant.i64\n  %1 = load.i64 for_write %0\n"
                                       "  %2 = neg.i64 flags %1\n  store.i64 %0 %2\n"))),
              std::nullopt);
}

TEST(IrDeadCode, unused_values_go_and_the_rest_is_renumbered) {
    EXPECT_EQ(after(eliminate_dead_code, "  %0 = constant.i64 imm=1\n  %1 = constant.i64 imm=2\n"
                                         "  %2 = add.i64 %0 %0\n  %3 = load.i64 %1\n  put.i64 %1 imm=8\n"),
              "  %0 = constant.i64 imm=2\n  %1 = load.i64 %0\n  put.i64 %0 imm=8\n");
}

TEST(IrFold, constants_are_computed_and_additions_become_displacements) {
    EXPECT_EQ(after([](Block& b) { fold_constants(b), eliminate_dead_code(b); },
                    "  %0 = get.i64 imm=8\n  %1 = constant.i64 imm=16\n  %2 = add.i64 %0 %1\n"
                    "  %3 = lea.i64 %2 imm=-4\n  %4 = constant.i8 imm=-1\n  %5 = zext.i64 %4\n"
                    "  %6 = shl.i64 %5 %4\n  store.i64 %3 %5\n"),
              "  %0 = get.i64 imm=8\n  %1 = lea.i64 %0 imm=12\n  %2 = constant.i64 imm=255\n  store.i64 %1 %2\n");
    EXPECT_EQ(after([](Block& b) { fold_constants(b), eliminate_dead_code(b); },
                    "  %0 = get.i32 imm=8\n  %1 = get.i32 imm=16\n  %2 = lea.i32 %0 %1 aux=2 imm=2147483647\n"
                    "  %3 = lea.i32 %2 imm=1\n  put.i32 %3 imm=8\n"),
              "  %0 = get.i32 imm=8\n  %1 = get.i32 imm=16\n  %2 = lea.i32 %0 %1 aux=2 imm=-2147483648\n"
              "  put.i32 %2 imm=8\n");
}

TEST(IrFold, operations_that_define_flags_stay) {
    std::string_view const text = "  %0 = constant.i32 imm=1\n  %1 = add.i32 flags %0 %0\n";
    EXPECT_EQ(after(fold_constants, text), text);
}

TEST(IrDeadFlags, an_earlier_definition_without_reader_goes) {
    EXPECT_EQ(after(eliminate_dead_flags, "  %0 = get.i32 imm=8\n  %1 = add.i32 flags %0 %0\n"
                                          "  put.i32 %1 imm=8\n  %3 = and.i32 flags %1 %1\n"),
              "  %0 = get.i32 imm=8\n  %1 = add.i32 %0 %0\n  put.i32 %1 imm=8\n  %3 = and.i32 flags %1 %1\n");
}

TEST(IrDeadFlags, readers_keep_the_definition) {
    for (std::string_view reader :
         {"  %3 = setcc.i8 cc=e\n", "  %3 = adc.i32 %0 %0\n", "  %3 = get_flags.i64\n", "  %3 = rcl.i32 %0 %1\n",
          "  %3 = select_cc.i32 %0 %0 cc=b\n", "  %3 = sbb.i32 flags %0 %0\n"}) {
        std::string const text = "  %0 = get.i32 imm=8\n  %1 = get.i8 imm=16\n  %2 = add.i32 flags %0 %0\n" +
                                 std::string(reader) + "  %4 = sub.i32 flags %0 %0\n";
        EXPECT_NE(after(eliminate_dead_flags, text).find("add.i32 flags"), std::string::npos) << reader;
    }
}

TEST(IrDeadFlags, a_definition_that_keeps_part_of_the_old_one_needs_it) {
    std::string_view const kept = "  %0 = get.i32 imm=8\n  %1 = add.i32 flags %0 %0\n  %2 = inc.i32 flags %0\n";
    EXPECT_EQ(after(eliminate_dead_flags, kept), kept);
}

TEST(IrDeadFlags, a_shift_by_an_unknown_count_may_keep_the_flags_and_by_a_known_one_not) {
    EXPECT_NE(after(eliminate_dead_flags, "  %0 = get.i32 imm=8\n  %1 = get.i8 imm=16\n"
                                          "  %2 = add.i32 flags %0 %0\n  %3 = shl.i32 flags %0 %1\n")
                  .find("add.i32 flags"),
              std::string::npos);
    EXPECT_EQ(after(eliminate_dead_flags, "  %0 = get.i32 imm=8\n  %1 = constant.i8 imm=4\n"
                                          "  %2 = add.i32 flags %0 %0\n  %3 = shl.i32 flags %0 %1\n")
                  .find("add.i32 flags"),
              std::string::npos);
}

TEST(IrDeadFlags, what_may_fault_or_call_sees_the_flags) {
    for (std::string_view between : {"  %3 = load.i32 %0\n", "  store.i64 %0 %1\n", "  %3 = call.i64 imm=1\n",
                                     "  %3 = udiv2.i64 %0 %0 %0\n", "  %3 = rmw_add.i64 flags %0 %0\n"}) {
        std::string const text = "  %0 = get.i64 imm=8\n  %1 = add.i64 flags %0 %0\n  insn_start.i64 imm=3\n" +
                                 std::string(between) + "  %4 = sub.i64 flags %0 %0\n";
        Block block = parsed(with_frame(text));
        eliminate_dead_flags(block);
        EXPECT_TRUE(block.insts[1].sets_flags) << between;
    }
}

TEST(IrDeadFlags, an_overwritten_put_flags_goes) {
    EXPECT_EQ(after([](Block& b) { eliminate_dead_flags(b), eliminate_dead_code(b); },
                    "  %0 = get.i64 imm=8\n  put_flags.i64 %0\n  %2 = sub.i64 flags %0 %0\n"),
              "  %0 = get.i64 imm=8\n  %1 = sub.i64 flags %0 %0\n");
}

} // namespace
