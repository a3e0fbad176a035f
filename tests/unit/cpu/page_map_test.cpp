#include "vmm/cpu/x86/page_map.h"

#include <gtest/gtest.h>

#include <map>

using namespace vmm::x86;

namespace {
struct Tables {
    std::map<std::uint64_t, std::uint64_t> entries;
    ReadTable read = [this](std::uint64_t at, unsigned) -> std::optional<std::uint64_t> {
        auto it = entries.find(at);
        return it == entries.end() ? 0 : it->second;
    };
};
State long_mode() {
    State s;
    s.cr0 = cr0::pe | cr0::pg;
    s.cr4 = cr4::pae;
    s.efer = efer::lme | efer::lma;
    s.cr3 = 0x1000;
    return s;
}
} // namespace

TEST(PageMap, neighbours_of_the_same_rights_are_one_range_and_high_addresses_are_canonical) {
    Tables t;
    t.entries = {{0x1000, 0x2007}, {0x1ff8, 0x2003}, {0x2000, 0x3007}, {0x2ff8, 0xe3}, // 1 GiB at the end
                 {0x3000, 0x4007}, {0x3008, 0xe7},                                     // 2 MiB after the small pages
                 {0x4008, 0x9007}, {0x4010, 0xa007}, {0x4018, 0xb005}};
    PageMap map = list_pages(long_mode(), t.read);
    ASSERT_GE(map.ranges.size(), 5u);
    EXPECT_TRUE(map.whole);
    EXPECT_EQ(map.ranges[0].first, 0x1000u);
    EXPECT_EQ(map.ranges[0].last, 0x2fffu);
    EXPECT_TRUE(map.ranges[0].user && map.ranges[0].writable);
    EXPECT_FALSE(map.ranges[1].writable);
    EXPECT_EQ(map.ranges[2].first, 0x200000u);
    EXPECT_EQ(map.ranges.back().last, ~std::uint64_t(0));
    EXPECT_FALSE(map.ranges.back().user);
}

TEST(PageMap, tables_that_map_themselves_come_to_an_end) {
    Tables t;
    for (unsigned i = 0; i < 512; ++i) t.entries[0x1000 + 8 * i] = 0x1007 | std::uint64_t(i % 2) << 63;
    PageMap map = list_pages(long_mode(), t.read);
    EXPECT_LE(map.ranges.size(), max_map_ranges);
    EXPECT_FALSE(map.whole);
}

TEST(PageMap, two_level_and_pae_tables) {
    Tables t;
    State s;
    s.cr0 = cr0::pe | cr0::pg;
    s.cr4 = cr4::pse;
    s.cr3 = 0x1000;
    t.entries = {{0x1004, 0x87}, {0x1ffc, 0x2003}, {0x2ffc, 0x5003}};
    PageMap map = list_pages(s, t.read);
    ASSERT_EQ(map.ranges.size(), 2u);
    EXPECT_EQ(map.ranges[0].first, 0x400000u);
    EXPECT_EQ(map.ranges[0].last, 0x7fffffu);
    EXPECT_EQ(map.ranges[1].last, 0xffffffffu);
    s.cr4 = cr4::pae;
    s.cr3 = 0x1020;
    t.entries = {{0x1038, 0x2001}, {0x2ff8, 0x87}};
    map = list_pages(s, t.read);
    ASSERT_EQ(map.ranges.size(), 1u);
    EXPECT_EQ(map.ranges[0].first, 0xffe00000u);
    EXPECT_TRUE(map.ranges[0].user && map.ranges[0].writable);
}
