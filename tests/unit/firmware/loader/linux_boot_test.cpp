#include "boot_fixture.h"

using namespace vmm;
using namespace vmm::firmware;

namespace {

// A bzImage of protocol 2.15 with one setup sector and a payload of `payload` bytes 0x90.
Bytes bz_image(std::size_t payload = 0x1000, std::uint16_t xloadflags = 1) {
    Bytes b(2 * 512 + payload, 0x90);
    std::fill_n(b.begin(), 1024, 0);
    b[0x1f1] = 1;
    store_le(&b[0x1fe], std::uint16_t(0xaa55));
    b[0x200] = 0xeb;
    b[0x201] = 0x6a;
    std::memcpy(&b[0x202], "HdrS", 4);
    store_le(&b[0x206], std::uint16_t(0x20f));
    b[0x211] = 1;
    store_le(&b[0x214], std::uint32_t(0x100000));
    store_le(&b[0x22c], std::uint32_t(0x7fffffff));
    store_le(&b[0x230], std::uint32_t(0x200000));
    b[0x234] = 1;
    store_le(&b[0x236], xloadflags);
    store_le(&b[0x238], std::uint32_t(2047));
    store_le(&b[0x258], std::uint64_t(0x1000000));
    store_le(&b[0x260], std::uint32_t(0x800000));
    return b;
}
std::string failure(Result<BootEntry> const& r) { return r.ok() ? "loaded" : r.error().message(); }

} // namespace

TEST(LinuxBoot, a_64_bit_kernel_is_entered_at_its_64_bit_entry_with_an_identity_map) {
    BootFixture f(64);
    auto entry = f.load({f.file("k", bz_image()), "console=ttyS0", {}}).value();
    EXPECT_EQ(entry.mode, BootMode::long64);
    EXPECT_EQ(entry.rip, 0x1000200u);
    EXPECT_EQ(entry.cs.selector, 0x10);
    EXPECT_EQ(entry.cs.attributes, 0xa09b);
    EXPECT_EQ(entry.ss.selector, 0x18);
    EXPECT_EQ(entry.cr0, 0x80000011u);
    EXPECT_EQ(entry.cr4, 0x20u);
    EXPECT_EQ(entry.efer, 0x500u);
    EXPECT_EQ(f.read<std::uint64_t>(entry.gdt.base + 0x10), 0x00af9b000000ffffu);
    EXPECT_EQ(f.read<std::uint64_t>(entry.gdt.base + 0x18), 0x00cf93000000ffffu);
    EXPECT_EQ(f.read<std::uint8_t>(0x1000000), 0x90);
    // Walk to 0xffe00000, the last large page below 4 GiB.
    auto const pdpt = f.read<std::uint64_t>(entry.cr3) & ~0xfffull;
    auto const directory = f.read<std::uint64_t>(pdpt + 3 * 8) & ~0xfffull;
    EXPECT_EQ(f.read<std::uint64_t>(directory + 511 * 8), 0xffe00083u);
}

TEST(LinuxBoot, boot_params_describe_the_machine_and_the_command_line) {
    BootFixture f(64);
    f.platform.rsdp = 0xe0000;
    f.platform.acpi_tables = {AddressRange::of(0x3fe0000, 0x20000)};
    auto entry = f.load({f.file("k", bz_image()), "root=/dev/vda quiet", {}}).value();
    auto const bp = entry.gpr[boot_rsi];
    EXPECT_EQ(f.read<std::uint32_t>(bp + 0x202), 0x53726448u);
    EXPECT_EQ(f.read<std::uint8_t>(bp + 0x210), 0xff);
    EXPECT_EQ(f.read<std::uint32_t>(bp + 0x214), 0x1000000u);
    EXPECT_EQ(f.string(f.read<std::uint32_t>(bp + 0x228)), "root=/dev/vda quiet");
    EXPECT_EQ(f.read<std::uint64_t>(bp + 0x70), 0xe0000u);
    EXPECT_EQ(f.read<std::uint8_t>(bp + 6), 3);
    EXPECT_EQ(f.read<std::uint8_t>(bp + 7), 80);
    EXPECT_EQ(f.read<std::uint8_t>(bp + 0xf), 1);
    // e820: 0-639K ram, EBDA, BIOS, ram above 1 MiB up to the tables, tables, flash.
    ASSERT_EQ(f.read<std::uint8_t>(bp + 0x1e8), 6);
    EXPECT_EQ(f.read<std::uint64_t>(bp + 0x2d0 + 8), 0x9fc00u);
    EXPECT_EQ(f.read<std::uint64_t>(bp + 0x2d0 + 3 * 20), 0x100000u);
    EXPECT_EQ(f.read<std::uint64_t>(bp + 0x2d0 + 3 * 20 + 8), 0x3fe0000u - 0x100000);
    EXPECT_EQ(f.read<std::uint32_t>(bp + 0x2d0 + 4 * 20 + 16), 3u);
}

TEST(LinuxBoot, the_initrd_lies_at_the_top_of_ram_below_initrd_addr_max) {
    BootFixture f(64);
    auto initrd = f.file("i", Bytes(5000, 0x5a));
    auto entry = f.load({f.file("k", bz_image()), "", initrd, false}).value();
    auto const bp = entry.gpr[boot_rsi];
    EXPECT_EQ(f.read<std::uint32_t>(bp + 0x218), 64 * MiB - 8192);
    EXPECT_EQ(f.read<std::uint32_t>(bp + 0x21c), 5000u);
    EXPECT_EQ(f.read<std::uint8_t>(64 * MiB - 8192 + 4999), 0x5a);

    auto image = bz_image();
    store_le(&image[0x22c], std::uint32_t(0x2ffffff));
    entry = f.load({f.file("k", image), "", initrd, false}).value();
    EXPECT_EQ(f.read<std::uint32_t>(entry.gpr[boot_rsi] + 0x218), 0x3000000u - 8192);
}

TEST(LinuxBoot, a_kernel_without_64_bit_entry_starts_in_flat_protected_mode) {
    BootFixture f(64);
    auto entry = f.load({f.file("k", bz_image(0x1000, 0)), "", {}}).value();
    EXPECT_EQ(entry.mode, BootMode::protected32);
    EXPECT_EQ(entry.rip, 0x1000000u);
    EXPECT_EQ(entry.cs.attributes, 0xc09b);
    EXPECT_EQ(entry.cr0, 0x11u);
    EXPECT_EQ(entry.gpr[boot_rbx], 0u);
    EXPECT_EQ(f.read<std::uint32_t>(entry.gpr[boot_rsi] + 0x202), 0x53726448u);
}

TEST(LinuxBoot, a_protocol_2_00_kernel_finds_its_command_line_by_the_old_magic) {
    BootFixture f(64);
    auto image = bz_image(0x1000, 0);
    store_le(&image[0x206], std::uint16_t(0x200));
    auto entry = f.load({f.file("k", image), "auto", {}}).value();
    auto const bp = entry.gpr[boot_rsi];
    EXPECT_EQ(entry.rip, 0x100000u);
    EXPECT_EQ(f.read<std::uint16_t>(bp + 0x20), 0xa33f);
    EXPECT_EQ(f.string(bp + f.read<std::uint16_t>(bp + 0x22)), "auto");
}

TEST(LinuxBoot, a_kernel_needs_its_init_size_at_its_preferred_address) {
    BootFixture enough(24), less(23); // 8 MiB from 16 MiB on
    EXPECT_EQ(enough.load({enough.file("k", bz_image()), "", {}}).value().rip, 0x1000200u);
    EXPECT_NE(failure(less.load({less.file("k", bz_image()), "", {}})).find("needs 8 MiB of RAM at 0x1000000"),
              std::string::npos);
}

TEST(LinuxBoot, too_little_ram_is_told_with_the_figures) {
    BootFixture f(4);
    EXPECT_EQ(failure(f.load({f.file("k", bz_image()), "", {}})),
              "kernel '" + f.path("k") +
                  "' needs 8 MiB of RAM at 0x1000000 and the guest has 4 MiB in all; give it more "
                  "memory (-m)");
    BootFixture g(32);
    EXPECT_EQ(failure(g.load({g.file("k", bz_image()), "", g.file("i", Bytes(20 * MiB)), false})),
              "initrd '" + g.path("i") +
                  "' has 20971520 bytes but the guest has room for 15728640 (RAM 32 MiB, kernel and "
                  "tables taken off); give the guest more memory (-m)");
}

TEST(LinuxBoot, the_bios_data_area_tells_memory_size_serial_ports_and_text_mode) {
    BootFixture f(64);
    f.platform.com_ports = {0x3f8, 0x2f8, 0, 0};
    (void)f.load({f.file("k", bz_image()), "", {}}).value();
    EXPECT_EQ(f.read<std::uint16_t>(0x400), 0x3f8);
    EXPECT_EQ(f.read<std::uint16_t>(0x402), 0x2f8);
    EXPECT_EQ(f.read<std::uint16_t>(0x40e), 0x9fc0);
    EXPECT_EQ(f.read<std::uint16_t>(0x410), 0x0406);
    EXPECT_EQ(f.read<std::uint16_t>(0x413), 639);
    EXPECT_EQ(f.read<std::uint8_t>(0x449), 3);
    EXPECT_EQ(f.read<std::uint8_t>(0x484), 24);
}

TEST(LinuxBoot, real_mode_code_finds_a_handler_at_every_interrupt_vector) {
    BootFixture f(64);
    (void)f.load({f.file("k", bz_image()), "", {}}).value();
    auto first_byte = [&](unsigned vector) {
        std::uint64_t at = f.read<std::uint16_t>(4 * vector + 2) * 16 + f.read<std::uint16_t>(4 * vector);
        EXPECT_GE(at, 0x9fc10u); // in the EBDA, behind its size
        EXPECT_LT(at, 0xa0000u);
        return f.read<std::uint8_t>(at);
    };
    for (unsigned vector = 0; vector < 256; ++vector) EXPECT_NE(first_byte(vector), 0) << vector;
    EXPECT_EQ(first_byte(0x10), 0xcf); // video: iret
    EXPECT_EQ(first_byte(0x12), 0x1e); // memory size: push ds ...
    EXPECT_EQ(first_byte(0x15), 0x55); // not supported: push bp ...
    EXPECT_EQ(first_byte(0x08), 0x50); // the timer's interrupt: push ax ...
}

TEST(LinuxBoot, missing_and_useless_files_are_named) {
    BootFixture f(64);
    EXPECT_EQ(failure(f.load({"nofile", "", {}})), "could not open kernel file 'nofile': No such file or directory");
    EXPECT_EQ(failure(f.load({f.file("k", bz_image()), "", "nofile"})),
              "could not load initrd 'nofile': No such file or directory");
    EXPECT_EQ(failure(f.load({f.file("e", {}), "", {}})),
              "'" + f.path("e") + "': invalid kernel header: the file is empty");
    Bytes arm64(4096);
    std::memcpy(&arm64[0x38], "ARM\x64", 4);
    EXPECT_EQ(failure(f.load({f.file("a", arm64), "", {}})),
              "'" + f.path("a") + "' is an ARM64 Linux Image, this machine is x86-64");
    Bytes ppc(64);
    std::memcpy(ppc.data(),
                "\x7f"
                "ELF\x01\x02\x01",
                7);
    ppc[19] = 20;
    EXPECT_EQ(failure(f.load({f.file("p", ppc), "", {}})),
              "'" + f.path("p") + "' is an ELF file for PowerPC, this machine is x86-64");
    EXPECT_NE(failure(f.load({f.file("r", Bytes(3000, 0x77)), "", {}})).find("nor a multiboot 1 or 2 image"),
              std::string::npos);
    auto cut = bz_image();
    cut.resize(1024);
    EXPECT_NE(failure(f.load({f.file("c", cut), "", {}})).find("cut off"), std::string::npos);
    auto shortened = bz_image();
    store_le(&shortened[0x24c], std::uint32_t(0x1001));
    EXPECT_EQ(failure(f.load({f.file("s", shortened), "", {}})),
              "'" + f.path("s") +
                  "' is a Linux bzImage that is cut off: it should have at least 5121 bytes, the file has 5120");
    EXPECT_NE(failure(f.load({"/bin/true", "", {}})).find("not a kernel"), std::string::npos);
    EXPECT_EQ(failure(f.load({f.file("k", bz_image()), std::string(3000, 'x'), {}})),
              "-append has 3000 characters, kernel '" + f.path("k") + "' takes at most 2047");
}

TEST(LinuxBoot, a_header_truncated_anywhere_never_crashes) {
    BootFixture f(32);
    auto const whole = bz_image(0x300);
    for (std::size_t n = 0; n < whole.size(); n += 7)
        (void)f.load({f.file("k", Bytes(whole.begin(), whole.begin() + long(n))), "", {}});
    SUCCEED();
}
