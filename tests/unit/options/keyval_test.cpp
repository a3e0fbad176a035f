#include "vmm/options/keyval.h"

#include <gtest/gtest.h>

using namespace vmm;

TEST(KeyVal, a_doubled_comma_is_a_comma) {
    Properties list = parse_list("a,,b.img,format=raw", "file");
    ASSERT_EQ(list.items.size(), 2u);
    EXPECT_EQ(*list.find("file"), "a,b.img");
    EXPECT_EQ(*list.find("format"), "raw");
}

TEST(KeyVal, short_bools_are_on_and_with_no_off) {
    Properties list = parse_list("path,server,nowait", "path");
    EXPECT_EQ(*list.find("path"), "path");
    EXPECT_EQ(*list.find("server"), "on");
    EXPECT_EQ(*list.find("wait"), "off");
}

TEST(KeyVal, the_last_of_a_name_wins) { EXPECT_EQ(*parse_list("a=1,a=2").find("a"), "2"); }

TEST(KeyVal, sizes_take_suffixes_and_fractions) {
    struct {
        char const* text;
        std::uint64_t bytes;
    } const rows[] = {{"512", 512ull << 20}, {"1G", 1ull << 30},    {"1.5G", 3ull << 29}, {"64k", 64 << 10},
                      {"10B", 10},           {"0x10", 16ull << 20}, {"2t", 2ull << 40},   {"0", 0}};
    for (auto const& row : rows) {
        auto size = parse_size("size", row.text, 1 << 20);
        ASSERT_TRUE(size.ok()) << row.text;
        EXPECT_EQ(*size, row.bytes) << row.text;
    }
    for (char const* text : {"", "x", "1x", "-1", "1.G", "16E", "1GG", "99999999999999999999"})
        EXPECT_FALSE(parse_size("size", text, 1).ok()) << text;
}

TEST(KeyVal, numbers_are_decimal_hexadecimal_or_octal) {
    EXPECT_EQ(parse_number("n", "10").value(), 10u);
    EXPECT_EQ(parse_number("n", "0xf4").value(), 0xf4u);
    EXPECT_EQ(parse_number("n", "010").value(), 8u);
    EXPECT_FALSE(parse_number("n", "0x").ok());
    EXPECT_FALSE(parse_number("n", "1 ").ok());
}
