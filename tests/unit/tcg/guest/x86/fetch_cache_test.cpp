#include "vmm/tcg/guest/x86/fetch_cache.h"

#include <gtest/gtest.h>

namespace vmm::tcg::x86 {
namespace {

constexpr std::uint64_t code_page = 0xffffffff81000000, data_page = 0x7f0001000000; // they share a mark

TEST(FetchCache, epoch_moves_when_a_page_looked_up_goes) {
    FetchCache cache;
    cache.put(code_page, {}, 12, true);
    std::uint64_t const before = *cache.epoch();
    cache.invalidate(code_page + 0x123, true);
    EXPECT_NE(*cache.epoch(), before);
    EXPECT_EQ(cache.find(code_page), nullptr);
}

TEST(FetchCache, epoch_moves_when_a_page_goes_that_another_has_displaced) {
    FetchCache cache;
    cache.put(code_page, {}, 12, true);
    cache.put(code_page + FetchCache::entries * 4096, {}, 12, true);
    std::uint64_t const before = *cache.epoch();
    cache.invalidate(code_page, true);
    EXPECT_NE(*cache.epoch(), before);
}

TEST(FetchCache, epoch_stays_when_a_page_far_from_all_code_goes) {
    FetchCache cache;
    cache.put(code_page, {}, 12, true);
    std::uint64_t const before = *cache.epoch();
    cache.invalidate(data_page, true);
    EXPECT_EQ(*cache.epoch(), before);
    EXPECT_NE(cache.find(code_page), nullptr);
}

TEST(FetchCache, page_found_in_a_new_epoch_counts_as_looked_up) {
    FetchCache cache;
    cache.put(code_page, {}, 12, true);
    cache.put(data_page + 4096, {}, 12, false);
    cache.clear_non_global(); // begins an epoch
    ASSERT_NE(cache.find(code_page), nullptr);
    std::uint64_t const before = *cache.epoch();
    cache.invalidate(code_page, true);
    EXPECT_NE(*cache.epoch(), before);
}

} // namespace
} // namespace vmm::tcg::x86
