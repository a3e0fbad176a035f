#include "boot_fixture.h"
#include "elf_builder.h"

using namespace vmm;
using namespace vmm::firmware;

namespace {
constexpr std::uint32_t mb1 = 0x1badb002, mb2 = 0xe85250d6;

Bytes multiboot1_code(std::uint32_t flags) {
    Bytes code;
    put(code, {mb1, flags, 0u - mb1 - flags});
    code.resize(256, 0xf4);
    return code;
}
// A multiboot 2 header with the given tag words (8-byte multiples) before the end tag.
Bytes multiboot2_code(std::initializer_list<std::uint32_t> tags) {
    std::uint32_t const length = 16 + 4 * std::uint32_t(tags.size()) + 8;
    Bytes code;
    put(code, {mb2, 0, length, 0u - mb2 - length});
    put(code, tags);
    put(code, {0, 8});
    code.resize(256, 0xf4);
    return code;
}
} // namespace

TEST(Multiboot1, an_elf_kernel_gets_memory_command_line_and_modules) {
    BootFixture f(32);
    auto a = f.file("a", Bytes(10, 0xaa)), b = f.file("b", Bytes(5000, 0xbb));
    auto k = f.file("k", elf(false, 0x100000, multiboot1_code(3), 0x100010));
    auto e = f.load({k, "-v x", a + " one two," + b}).value();
    EXPECT_EQ(e.mode, BootMode::protected32);
    EXPECT_EQ(e.rip, 0x100010u);
    EXPECT_EQ(e.gpr[boot_rax], 0x2badb002u);
    EXPECT_EQ(f.read<std::uint32_t>(0x100000), mb1);
    auto const info = e.gpr[boot_rbx];
    auto at = [&](unsigned offset) { return f.read<std::uint32_t>(info + offset); };
    EXPECT_EQ(at(0), 0x124fu);
    EXPECT_EQ(at(4), 639u);
    EXPECT_EQ(at(8), 31u * 1024);
    EXPECT_EQ(f.string(at(16)), k + " -v x");
    ASSERT_EQ(at(20), 2u);
    auto const mods = at(24);
    auto const second = f.read<std::uint32_t>(mods + 16);
    EXPECT_EQ(f.read<std::uint32_t>(mods) % 4096, 0u);
    EXPECT_EQ(f.read<std::uint32_t>(mods + 4) - f.read<std::uint32_t>(mods), 10u);
    EXPECT_EQ(f.string(f.read<std::uint32_t>(mods + 8)), a + " one two");
    EXPECT_EQ(f.read<std::uint8_t>(second + 4999), 0xbb);
    EXPECT_EQ(f.read<std::uint32_t>(at(48)), 20u); // first map entry's size field
    EXPECT_EQ(f.read<std::uint64_t>(at(48) + 12), 0x9fc00u);
    EXPECT_EQ(f.string(at(64)), "vmm");
    EXPECT_EQ(f.read<std::uint64_t>(info + 88), 0xb8000u);
    EXPECT_EQ(f.read<std::uint8_t>(info + 109), 2);
}

TEST(Multiboot1, a_flat_binary_is_loaded_by_its_header_addresses) {
    BootFixture f(32);
    Bytes file(64, 0x11);
    std::uint32_t const flags = 0x10000;
    put(file, {mb1, flags, 0u - mb1 - flags, 0x200040, 0x200000, 0x200080, 0x200100, 0x200070});
    file.resize(4096, 0x22);
    f.space.write(0x2000f0, 8, ~0ull);
    auto e = f.load({f.file("k", file), "", {}}).value();
    EXPECT_EQ(e.rip, 0x200070u);
    EXPECT_EQ(f.read<std::uint8_t>(0x200000), 0x11);
    EXPECT_EQ(f.read<std::uint8_t>(0x20007f), 0x22);
    EXPECT_EQ(f.read<std::uint8_t>(0x200080), 0);
    EXPECT_EQ(f.read<std::uint64_t>(0x2000f0), 0u);
}

TEST(Multiboot1, damaged_headers_are_refused) {
    BootFixture f(32);
    EXPECT_FALSE(f.load({f.file("k", elf(false, 0x100000, multiboot1_code(0x10), 0x100010)), "", {}}).ok());
    Bytes file;
    std::uint32_t const flags = 0x10000;
    put(file, {mb1, flags, 0u - mb1 - flags, 0x1000, 0x200000, 0, 0, 0});
    EXPECT_FALSE(f.load({f.file("k", file), "", {}}).ok());
    store_le(&file[12], std::uint32_t(0x200000));
    store_le(&file[20], std::uint32_t(0x300000));
    EXPECT_FALSE(f.load({f.file("k", file), "", {}}).ok());
    store_le(&file[20], std::uint32_t(0x100000));
    EXPECT_FALSE(f.load({f.file("k", file), "", {}}).ok());
    store_le(&file[20], std::uint32_t(0));
    store_le(&file[24], std::uint32_t(0xffffffff));
    EXPECT_FALSE(f.load({f.file("k", file), "", {}}).ok());
    store_le(&file[24], std::uint32_t(0));
    EXPECT_TRUE(f.load({f.file("k", file), "", {}}).ok());
}

namespace {
// Address of the first information tag of `type`, or 0.
GuestPhys find_tag(BootFixture& f, GuestPhys info, std::uint32_t type) {
    GuestPhys const end = info + f.read<std::uint32_t>(info);
    for (GuestPhys at = info + 8; at < end; at = align_up<GuestPhys>(at + f.read<std::uint32_t>(at + 4), 8))
        if (f.read<std::uint32_t>(at) == type) return at;
    return 0;
}
// The ELF header puts the code at an offset that is a multiple of 8 only with the note padded; a flat file is simpler.
Bytes flat2(std::initializer_list<std::uint32_t> more = {}) {
    std::vector<std::uint32_t> tags{2, 24, 0x200000, 0x200000, 0, 0, 3, 12, 0x200080, 0};
    tags.insert(tags.end(), more);
    std::uint32_t const length = 16 + 4 * std::uint32_t(tags.size()) + 8;
    Bytes code;
    put(code, {mb2, 0, length, 0u - mb2 - length});
    for (auto t : tags) put(code, {t});
    put(code, {0, 8});
    code.resize(512, 0xf4);
    return code;
}
} // namespace

TEST(Multiboot2, a_flat_kernel_gets_all_information_tags) {
    BootFixture f(32);
    f.platform.rsdp = 0xe0000;
    f.space.write(0xe0000 + 15, 1, 2);
    auto m = f.file("m", Bytes(100, 0xcc));
    auto e = f.load({f.file("k", flat2()), "args", m + " mod"}).value();
    EXPECT_EQ(e.rip, 0x200080u);
    EXPECT_EQ(e.gpr[boot_rax], 0x36d76289u);
    auto const info = e.gpr[boot_rbx];
    EXPECT_EQ(info % 8, 0u);
    EXPECT_EQ(f.string(find_tag(f, info, 1) + 8), "args");
    EXPECT_EQ(f.string(find_tag(f, info, 2) + 8), "vmm");
    auto const module = find_tag(f, info, 3);
    ASSERT_NE(module, 0u);
    EXPECT_EQ(f.read<std::uint8_t>(f.read<std::uint32_t>(module + 8) + 99), 0xcc);
    EXPECT_EQ(f.string(module + 16), m + " mod");
    EXPECT_EQ(f.read<std::uint32_t>(find_tag(f, info, 4) + 12), 31u * 1024);
    EXPECT_EQ(f.read<std::uint32_t>(find_tag(f, info, 6) + 8), 24u);
    EXPECT_EQ(f.read<std::uint64_t>(find_tag(f, info, 8) + 8), 0xb8000u);
    EXPECT_NE(find_tag(f, info, 14), 0u);
    EXPECT_NE(find_tag(f, info, 15), 0u);
}

TEST(Multiboot2, required_unknown_tags_are_refused_and_optional_ones_ignored) {
    BootFixture f(32);
    EXPECT_TRUE(f.load({f.file("k", flat2({0x1ffff, 8})), "", {}}).ok());
    EXPECT_FALSE(f.load({f.file("k", flat2({0xffff, 8})), "", {}}).ok());
    EXPECT_FALSE(f.load({f.file("k", flat2({0xffff, 0})), "", {}}).ok());
    EXPECT_FALSE(f.load({f.file("k", flat2({0x10001, 0x7fffffff})), "", {}}).ok());
    f.platform.vga_text = false;
    EXPECT_FALSE(f.load({f.file("k", flat2({4, 12, 1, 0})), "", {}}).ok());
}

TEST(Multiboot2, a_relocatable_elf_kernel_moves_into_its_wanted_range) {
    BootFixture f(32);
    // Header offset must be 8-aligned: 64-bit ELF header 64 + 2*56 + 20 = 196, so 4 bytes of padding come first.
    Bytes code(4, 0x90);
    auto const body = multiboot2_code({10, 24, 0x800000, 0xffffff, 0x1000, 1});
    code.insert(code.end(), body.begin(), body.end());
    auto e = f.load({f.file("k", elf(true, 0x100000, code, 0x100010)), "", {}}).value();
    EXPECT_EQ(e.rip, 0x800010u);
    auto const base = find_tag(f, e.gpr[boot_rbx], 21);
    ASSERT_NE(base, 0u);
    EXPECT_EQ(f.read<std::uint32_t>(base + 8), 0x800000u);
}
