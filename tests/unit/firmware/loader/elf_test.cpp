#include "boot_fixture.h"
#include "elf_builder.h"

#include <random>

using namespace vmm;
using namespace vmm::firmware;

TEST(Pvh, start_info_holds_command_line_memory_map_and_initrd) {
    BootFixture f(32);
    f.platform.rsdp = 0xe0010;
    auto k = f.file("k", elf(true, 0x1000000, Bytes(64, 0xf4), 0x1000000, 0x1000020));
    auto e = f.load({k, "quiet", f.file("i", Bytes(5000, 0x3c))}).value();
    EXPECT_EQ(e.mode, BootMode::protected32);
    EXPECT_EQ(e.rip, 0x1000020u);
    EXPECT_EQ(e.cr0 & 0x80000001, 1u);
    auto const info = e.gpr[boot_rbx];
    EXPECT_EQ(f.read<std::uint32_t>(info), 0x336ec578u);
    EXPECT_EQ(f.read<std::uint32_t>(info + 4), 1u);
    ASSERT_EQ(f.read<std::uint32_t>(info + 12), 1u);
    auto const module = f.read<std::uint64_t>(info + 16);
    EXPECT_EQ(f.read<std::uint64_t>(module + 8), 5000u);
    EXPECT_EQ(f.read<std::uint8_t>(f.read<std::uint64_t>(module) + 4999), 0x3c);
    EXPECT_EQ(f.string(f.read<std::uint64_t>(info + 24)), "quiet");
    EXPECT_EQ(f.read<std::uint64_t>(info + 32), 0xe0010u);
    auto const map = f.read<std::uint64_t>(info + 40);
    ASSERT_EQ(f.read<std::uint32_t>(info + 48), 5u);
    EXPECT_EQ(f.read<std::uint64_t>(map + 8), 0x9fc00u);
    EXPECT_EQ(f.read<std::uint32_t>(map + 16), 1u);
}

TEST(Elf, without_note_a_64_bit_kernel_is_entered_in_long_mode_with_boot_params) {
    BootFixture f(32);
    auto e = f.load({f.file("k", elf(true, 0x1000000, Bytes(64, 0xf4), 0xffffffff81000010)), "a b", {}}).value();
    EXPECT_EQ(e.mode, BootMode::long64);
    EXPECT_EQ(e.rip, 0x1000010u); // the virtual entry, moved to where the segment lies
    EXPECT_EQ(f.string(f.read<std::uint32_t>(e.gpr[boot_rsi] + 0x228)), "a b");
    e = f.load({f.file("k", elf(false, 0x100000, Bytes(64, 0xf4), 0x100008)), "", {}}).value();
    EXPECT_EQ(e.mode, BootMode::protected32);
    EXPECT_EQ(e.rip, 0x100008u);
}

TEST(Elf, the_rest_of_a_segment_is_zeroed) {
    BootFixture f(32);
    f.space.write(0x100040, 8, ~0ull);
    (void)f.load({f.file("k", elf(false, 0x100000, Bytes(64, 0xf4), 0x100008)), "", {}}).value();
    EXPECT_EQ(f.read<std::uint64_t>(0x10003f), 0xf4u);
}

TEST(Elf, a_segment_outside_ram_is_refused_with_the_figures) {
    BootFixture f(32);
    auto r = f.load({f.file("k", elf(true, 0x10000000, Bytes(64), 0x10000000)), "", {}});
    ASSERT_FALSE(r.ok());
    EXPECT_NE(r.error().message().find("at 0x10000000"), std::string::npos);
    EXPECT_NE(r.error().message().find("32 MiB"), std::string::npos);
    EXPECT_FALSE(f.load({f.file("k", elf(true, ~0ull - 0x40, Bytes(64), 0)), "", {}}).ok());
}

TEST(Elf, the_part_of_a_segment_that_lies_in_the_bios_area_is_left_out) {
    BootFixture f(32);
    Bytes code(0x1020, 0x11);
    std::fill_n(code.begin() + 0x1000, 0x20, 0x22);
    auto e = f.load({f.file("k", elf(false, 0xff000, code, 0x100004)), "", {}}).value();
    EXPECT_EQ(e.rip, 0x100004u);
    EXPECT_EQ(f.read<std::uint8_t>(0xff000), 0);
    EXPECT_EQ(f.read<std::uint8_t>(0x100000), 0x22);
    EXPECT_EQ(f.read<std::uint8_t>(0x100020), 0);
}

TEST(Elf, damage_anywhere_never_crashes) {
    BootFixture f(16);
    std::mt19937 random(1);
    for (auto const& whole :
         {elf(true, 0x100000, Bytes(64), 0x100000, 0x100000), elf(false, 0x100000, Bytes(64), 0x100000)}) {
        for (std::size_t n = 0; n < whole.size(); n += 3)
            (void)f.load({f.file("k", Bytes(whole.begin(), whole.begin() + long(n))), "", {}});
        for (int i = 0; i < 500; ++i) {
            auto bad = whole;
            for (int j = 0; j < 3; ++j) bad[random() % 180] = std::uint8_t(random());
            (void)f.load({f.file("k", bad), "", {}});
        }
    }
    SUCCEED();
}

// The kernels of scripts/guests, when they are there.
class RealKernel : public testing::TestWithParam<char const*> {};
TEST_P(RealKernel, is_recognised_and_placed) {
    char const *cache = std::getenv("VMM_GUESTS"), *home = std::getenv("HOME");
    std::string const guests = cache ? cache : std::string(home ? home : "") + "/.cache/vmm-guests";
    std::string const kernel = guests + "/" + GetParam();
    if (!std::filesystem::exists(kernel)) GTEST_SKIP() << kernel << " is missing: run scripts/guests";
    BootFixture f(256);
    auto e = f.load({kernel, "console=ttyS0", guests + "/amd64/initrd.gz"});
    ASSERT_TRUE(e.ok()) << e.error().message();
    bool const pvh = kernel.find("vmlinux") != std::string::npos, is64 = kernel.find("amd64") != std::string::npos;
    EXPECT_EQ(e->mode, is64 && !pvh ? BootMode::long64 : BootMode::protected32);
    EXPECT_EQ(e->gpr[boot_rbx] != 0, pvh);
}
INSTANTIATE_TEST_SUITE_P(Debian, RealKernel,
                         testing::Values("amd64/vmlinuz", "amd64/vmlinux", "i386/vmlinuz", "i386/vmlinux"));
