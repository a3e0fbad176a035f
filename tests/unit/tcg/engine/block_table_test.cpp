// BlockTable against std::map: what was added is found until it is taken, however the places collide.
#include "vmm/tcg/engine/block_table.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <utility>

namespace {

using Table = vmm::tcg::BlockTable<int>;

std::uint8_t const* at(std::uint64_t address) { return reinterpret_cast<std::uint8_t const*>(address); }

TEST(BlockTable, what_was_added_is_found_until_it_is_taken) {
    Table table;
    std::map<std::pair<std::uint64_t, std::uint64_t>, int> model;
    std::mt19937 random(1);
    for (int i = 0; i < 200000; ++i) {
        std::uint64_t const address = 0x7f0000000000 + random() % 6000, mode = random() % 3;
        auto const key = std::pair(address, mode);
        int const* found = table.find(at(address), mode);
        auto known = model.find(key);
        ASSERT_EQ(found != nullptr, known != model.end());
        if (!found) {
            table.add(at(address), mode, std::make_unique<int>(i));
            model[key] = i;
            continue;
        }
        ASSERT_EQ(*found, known->second);
        if (random() % 2) continue;
        ASSERT_EQ(*table.take(at(address), mode), known->second);
        model.erase(known);
    }
    EXPECT_EQ(table.size(), model.size());
}

TEST(BlockTable, all_blocks_are_visited_and_given_back) {
    Table table;
    int sum = 0;
    for (int i = 1; i <= 10000; ++i) table.add(at(std::uint64_t(i) * 64), 7, std::make_unique<int>(i));
    table.for_each([&](int const& v) { sum += v; });
    EXPECT_EQ(sum, 10000 * 10001 / 2);
    table.take_all([&](std::unique_ptr<int> v) { sum -= *v; });
    EXPECT_EQ(sum, 0);
    EXPECT_EQ(table.size(), 0u);
    EXPECT_EQ(table.find(at(64), 7), nullptr);
}

} // namespace
