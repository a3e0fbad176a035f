// Options every driver takes: from an option tree to the fields they stand for.
#include "block/core/common_options.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::block;

namespace {

Result<OpenOptions> taken(std::string_view text, CacheMode cache = CacheMode::writeback) {
    OpenOptions options;
    options.cache = cache;
    options.tree = TRY(OptionValues::parse(text));
    TRY(take_common_options(options));
    return options;
}

TEST(CommonOptions, cache_switches_change_the_mode_they_are_added_to) {
    EXPECT_EQ(taken("cache.direct=on")->cache, CacheMode::none);
    EXPECT_EQ(taken("file.cache.direct=on")->cache, CacheMode::none);
    EXPECT_EQ(taken("cache.direct=on", CacheMode::writethrough)->cache, CacheMode::directsync);
    EXPECT_EQ(taken("cache.direct=off", CacheMode::none)->cache, CacheMode::writeback);
    EXPECT_EQ(taken("cache.no-flush=on")->cache, CacheMode::unsafe);
    EXPECT_EQ(taken("cache.no-flush=off", CacheMode::unsafe)->cache, CacheMode::writeback);
    EXPECT_EQ(taken("", CacheMode::directsync)->cache, CacheMode::directsync);
    EXPECT_FALSE(taken("cache.direct=maybe").ok());
}

TEST(CommonOptions, each_has_its_field_and_leaves_the_tree) {
    Result<OpenOptions> o = taken("file.locking=off,discard=unmap,file.aio=threads,detect-zeroes=unmap,read-only=on,"
                                  "auto-read-only=on,force-share=on,file.filename=x,lazy-refcounts=on");
    ASSERT_TRUE(o.ok()) << o.error().message();
    EXPECT_EQ(o->locking, LockMode::off);
    EXPECT_EQ(o->discard, DiscardMode::unmap);
    EXPECT_EQ(o->aio, AioEngine::threads);
    EXPECT_EQ(o->detect_zeroes, DetectZeroes::unmap);
    EXPECT_TRUE(o->read_only && o->auto_read_only && o->force_share);
    EXPECT_EQ(o->tree.all().size(), 2u); // what is the drivers' own
}

TEST(CommonOptions, nonsense_is_named) {
    EXPECT_EQ(taken("locking=foo").error().message(), "invalid parameter value: foo");
    EXPECT_EQ(taken("detect-zeroes=foo").error().message(), "invalid parameter value: foo");
    EXPECT_EQ(taken("detect-zeroes=unmap").error().message(),
              "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
}

} // namespace
