// Option values, sizes and the info tree.
#include "block/core/image_info.h"
#include "block/core/open_options.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::block;

namespace {

TEST(parse_size, suffixes_fractions_and_nonsense) {
    EXPECT_EQ(parse_size("64k", "size").value(), 65536u);
    EXPECT_EQ(parse_size("1.5G", "size").value(), 1610612736u);
    EXPECT_EQ(parse_size("0x200", "size").value(), 512u);
    for (char const* bad : {"", "-1", "foo", "1x", "99999999999999999999", "16E", "1.5"})
        EXPECT_FALSE(parse_size(bad, "size").ok()) << bad;
}

TEST(OptionValues, parses_commas_and_bare_names) {
    auto values = OptionValues::parse("a=b,,c,flag,size=1k").value();
    EXPECT_EQ(values.text("a"), "b,c");
    EXPECT_EQ(values.text("flag"), "on");
    EXPECT_EQ(values.size("size", 0).value(), 1024u);
}

TEST(OptionValues, a_bare_name_that_begins_with_no_means_off) {
    auto values = OptionValues::parse("nolazy,noise=2").value();
    EXPECT_EQ(values.text("lazy"), "off");
    EXPECT_EQ(values.text("noise"), "2");
}

TEST(OptionValues, the_formatting_line_shows_switches_as_given_and_numbers_as_understood) {
    constexpr OptionSpec specs[] = {{"size", OptionType::size, ""},
                                    {"lazy", OptionType::boolean, "", "off"},
                                    {"bits", OptionType::number, "", "16"},
                                    {"file", OptionType::string, ""}};
    auto values = OptionValues::parse("size=1k,lazy=yes,bits=0x10,file=").value();
    EXPECT_EQ(formatting_line("x", "f", specs, values), "Formatting 'x', fmt=f size=1024 lazy=yes bits=16 file=");
}

TEST(OptionValues, unknown_name_is_named) {
    constexpr OptionSpec specs[] = {{"size", OptionType::size, "Virtual disk size"}};
    auto values = OptionValues::parse("size=1,foo=2").value();
    EXPECT_EQ(values.check_against(specs).error().message(), "Invalid parameter 'foo'");
}

TEST(parse_json_options, nested_objects_flatten) {
    auto values =
        parse_json_options(R"({"driver":"raw","file":{"driver":"file","filename":"x"},"n":4,"b":true})").value();
    EXPECT_EQ(values.text("file.filename"), "x");
    EXPECT_EQ(values.text("n"), "4");
    EXPECT_EQ(values.text("b"), "on");
    EXPECT_FALSE(parse_json_options("{").ok());
    EXPECT_FALSE(parse_json_options("[]").ok());
}

TEST(OptionValues, an_unknown_option_is_named_with_the_nearest_one_beneath) {
    constexpr OptionSpec specs[] = {{"cluster_size", OptionType::size, ""}, {"encrypt.", OptionType::string, ""}};
    EXPECT_EQ(OptionValues::parse("cluster_siz=4k")->check_against(specs).error().message(),
              "Invalid parameter 'cluster_siz'\nDid you mean 'cluster_size'?");
    EXPECT_EQ(OptionValues::parse("foo=1")->check_against(specs).error().message(), "Invalid parameter 'foo'");
    EXPECT_EQ(OptionValues::parse("foo=1")->check_open_options(specs, "It does not").error().message(),
              "It does not support the option 'foo'");
    EXPECT_TRUE(OptionValues::parse("encrypt.format=aes,cluster_size=1M")->check_open_options(specs, "").ok());
    EXPECT_FALSE(OptionValues::parse("cluster_size=x")->check_open_options(specs, "").ok());
}

TEST(human_size, matches_qemu) {
    EXPECT_EQ(human_size(0), "0 B");
    EXPECT_EQ(human_size(200704), "196 KiB");
    EXPECT_EQ(human_size(10ull << 30), "10 GiB");
    EXPECT_EQ(human_size(1950351), "1.86 MiB");
}

TEST(Value, text_and_json) {
    Value v;
    v.set("lazy-refcounts", false).set("list", Value::list().add(Value().set("a", 1)));
    EXPECT_EQ(v.text(1), "    lazy refcounts: false\n    list:\n        [0]:\n            a: 1\n");
    EXPECT_EQ(
        v.json(),
        "{\n    \"lazy-refcounts\": false,\n    \"list\": [\n        {\n            \"a\": 1\n        }\n    ]\n}");
}

} // namespace
