// Command lines as getopt_long takes them apart, and the sizes vmm-io prints.
#include "block/tools/common/arguments.h"
#include "block/tools/io/command_options.h"
#include "block/tools/io/report.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::block;

namespace {

constexpr OptionRow rows[] = {{"format", 'f', true}, {"quiet", 'q'}, {"output", 0, true}, {"outside", 0}};

std::string error_of(std::vector<std::string> words) {
    auto parsed = Arguments::parse(words, rows);
    return parsed.ok() ? "" : parsed.error().message();
}

TEST(Arguments, options_stand_anywhere_and_in_clusters) {
    std::vector<std::string> words = {"a", "-qf", "raw", "b", "--output=json", "--", "-q"};
    auto parsed = Arguments::parse(words, rows);
    ASSERT_TRUE(parsed.ok());
    EXPECT_TRUE(parsed->has('q'));
    EXPECT_EQ(*parsed->value('f'), "raw");
    EXPECT_EQ(*parsed->value("output"), "json");
    EXPECT_EQ(parsed->operands(), (std::vector<std::string>{"a", "b", "-q"}));
}

TEST(Arguments, value_may_be_attached_and_long_names_shortened) {
    std::vector<std::string> words = {"-fraw", "--outp", "human", "-"};
    auto parsed = Arguments::parse(words, rows);
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed->value('f'), "raw");
    EXPECT_EQ(*parsed->value("output"), "human");
    EXPECT_EQ(parsed->operands().size(), 1u);
}

TEST(Arguments, errors_name_the_word) {
    EXPECT_EQ(error_of({"-Z"}), "unrecognized option '-Z'");
    EXPECT_EQ(error_of({"--out", "x"}), "unrecognized option '--out'"); // output or outside?
    EXPECT_EQ(error_of({"-f"}), "missing argument for option '-f'");
    EXPECT_EQ(error_of({"--quiet=1"}), "unrecognized option '--quiet=1'");
}

TEST(parse_byte_count, explains_itself_in_two_lines) {
    EXPECT_EQ(parse_byte_count("p", "x", "1.5k").value(), 1536u);
    EXPECT_EQ(parse_byte_count("p", "image size", "1Z").error().message(),
              "Invalid image size specified. You may use k, M, G, T, P or E suffixes for\n"
              "p: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    EXPECT_FALSE(parse_byte_count("p", "x", "9E").ok()); // beyond 2^63
}

TEST(io_size, has_three_decimals_unless_whole) {
    EXPECT_EQ(io_size(512), "512 bytes");
    EXPECT_EQ(io_size(1024), "1 KiB");
    EXPECT_EQ(io_size(1025), "1.001 KiB");
    EXPECT_EQ(io_size(2000000), "1.907 MiB");
    EXPECT_EQ(io_size(0.813997), "0.813997 bytes");
}

TEST(parse_flags, flags_and_values) {
    std::vector<std::string> words = {"read", "-qP", "0x5", "0", "4k", "-v"};
    auto flags = parse_flags(words, "P:qv");
    ASSERT_TRUE(flags);
    EXPECT_TRUE(flags->has('q') && flags->has('v'));
    EXPECT_EQ(*flags->value('P'), "0x5");
    EXPECT_EQ(flags->operands.size(), 2u);
    std::vector<std::string> wrong = {"read", "-Z"};
    EXPECT_FALSE(parse_flags(wrong, "P:qv"));
}

} // namespace
