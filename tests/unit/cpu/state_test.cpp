#include "vmm/cpu/x86/state.h"

#include <gtest/gtest.h>

using namespace vmm;

TEST(X86State, every_field_survives_save_and_load) {
    x86::State s = x86::reset_state(0x663, true);
    s.gpr[3] = 1234;
    s.ymm[15][3] = 99;
    s.x87.r[7].mantissa = 5;
    s.sipi_vector = 0x9a;
    StateWriter first, second;
    save_state(first, s);
    StateReader reader(first.bytes());
    auto loaded = load_state<x86::State>(reader);
    ASSERT_TRUE(loaded.ok()) << loaded.error().message();
    save_state(second, *loaded);
    EXPECT_EQ(first.bytes(), second.bytes());
    EXPECT_EQ(loaded->ymm[15][3], 99u);
}

TEST(X86State, reset_starts_at_the_reset_vector_in_real_mode) {
    x86::State s = x86::reset_state(0x663, true);
    EXPECT_EQ(s.seg[x86::cs].base + s.rip, 0xfffffff0u);
    EXPECT_FALSE(s.protected_mode());
    EXPECT_EQ(s.gpr[x86::rdx], 0x663u);
    EXPECT_EQ(x86::reset_state(0, false).activity, x86::Activity::wait_for_sipi);
}
