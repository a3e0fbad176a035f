#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

using namespace vmm;

static Result<int> half(int v) {
    if (v % 2) return error("{} is odd", v);
    return v / 2;
}
static Result<int> quarter(int v) { return half(TRY(half(v))); }

TEST(Result, try_passes_the_value_on_or_returns_the_error) {
    EXPECT_EQ(quarter(8).value(), 2);
    EXPECT_EQ(quarter(6).error().message(), "3 is odd");
}

TEST(Result, carries_errno_and_its_text) {
    Error e = error_from_errno(ENOENT, "Could not open '{}'", "x");
    EXPECT_EQ(e.errno_value(), ENOENT);
    EXPECT_EQ(e.with_prefix("-hda x").message(), "-hda x: Could not open 'x': No such file or directory");
}

TEST(Result, holds_move_only_values) {
    Result<std::unique_ptr<int>> r = std::make_unique<int>(3);
    EXPECT_EQ(*std::move(r).value(), 3);
}

TEST(Checked, overflow_is_reported_and_rounding_is_exact) {
    EXPECT_FALSE(checked_add<std::uint64_t>(UINT64_MAX, 1));
    EXPECT_EQ(div_ceil<std::uint64_t>(UINT64_MAX, 2), (UINT64_MAX / 2) + 1);
    EXPECT_EQ(align_up<std::uint64_t>(513, 512), 1024u);
}

TEST(Endian, stores_bytes_in_the_named_order) {
    be32 v = 0x01020304;
    EXPECT_EQ(reinterpret_cast<unsigned char const&>(v), 1);
    EXPECT_EQ(std::uint32_t(v), 0x01020304u);
    static_assert(sizeof(le64) == 8 && alignof(le64) == 1);
}
