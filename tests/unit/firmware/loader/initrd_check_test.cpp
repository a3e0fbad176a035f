// What an initrd is made of, by the programs that make them.
#include "boot_fixture.h"
#include "firmware/loader/cpio.h"
#include "firmware/loader/initrd_check.h"

#include <iterator>
#include <random>

namespace vmm::firmware {
namespace {

std::string verdict(Bytes const& bytes) {
    auto const notes = check_initrd(FileSource::of_bytes("x", bytes));
    if (!notes.ok()) return notes.error().message();
    return notes->empty() ? "good" : notes->front();
}

Bytes operator+(Bytes a, Bytes const& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

Bytes archive() {
    BootFixture f(1);
    std::filesystem::create_directories(f.path("root/bin"));
    std::mt19937 noise(1);
    Bytes content(300000);
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = std::uint8_t(noise() % (i < 200000 ? 256 : 3));
    f.file("root/bin/program", content);
    f.file("root/empty", {});
    f.file("root/init", {'#', '!'});
    return pack_directory(f.path("root")).value().archive;
}

// The archive through a program; empty when there is no such program.
Bytes through(std::string const& program) {
    BootFixture f(1);
    f.file("in", archive());
    if (std::system((program + " < " + f.path("in") + " > " + f.path("out") + " 2>/dev/null").c_str()) != 0) return {};
    std::ifstream out(f.path("out"), std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(out), {});
}

Bytes cut(Bytes bytes, std::size_t size) {
    bytes.resize(size);
    return bytes;
}

TEST(InitrdCheck, a_cpio_archive_is_followed_to_its_end) {
    Bytes const whole = archive();
    EXPECT_EQ(verdict(whole), "good");
    EXPECT_EQ(verdict(whole + Bytes(400) + whole + Bytes(4096)), "good");
    for (std::size_t size : {std::size_t(7), std::size_t(111), std::size_t(1000), whole.size() / 2})
        EXPECT_EQ(verdict(cut(whole, size)),
                  fmt::format("initrd 'x' is cut off: its cpio archive does not end within its {} bytes", size));
    Bytes damaged = whole;
    damaged[54] = 'x';
    EXPECT_EQ(verdict(damaged), "initrd 'x' is damaged: its cpio archive makes no sense from offset 0 on");
    damaged = whole;
    damaged[5] = '7';
    EXPECT_NE(verdict(damaged).find("old format; Linux takes newc only"), std::string::npos);
}

TEST(InitrdCheck, what_follows_the_first_part_and_is_unknown_is_remarked_upon) {
    Bytes const whole = archive();
    EXPECT_EQ(verdict(whole + Bytes{'s', 'i', 'g', 'n'}),
              fmt::format("initrd 'x': what begins at offset {} is nothing that Linux knows; it will leave that out",
                          whole.size()));
}

TEST(InitrdCheck, nothing_and_noise_and_zeros_are_refused) {
    EXPECT_EQ(verdict({}), "initrd 'x' is empty");
    std::mt19937 noise(2);
    for (std::size_t size : {1, 2, 511, 5000, 200000}) {
        Bytes bytes(size);
        EXPECT_NE(verdict(bytes).find("nothing that Linux knows"), std::string::npos);
        for (std::uint8_t& b : bytes) b = std::uint8_t(noise());
        EXPECT_NE(verdict(bytes).find("nothing that Linux knows"), std::string::npos);
    }
}

struct Program {
    char const* command;
    char const* names; // in the message of a cut one; empty: an end that only decompressing tells
};
class Compressed : public testing::TestWithParam<Program> {};

TEST_P(Compressed, is_taken_whole_alone_and_in_a_row_and_refused_when_cut) {
    Bytes const whole = through(GetParam().command);
    if (whole.empty()) GTEST_SKIP() << "no " << GetParam().command;
    EXPECT_EQ(verdict(whole), "good");
    EXPECT_EQ(verdict(whole + Bytes(512)), "good");
    EXPECT_EQ(verdict(archive() + whole), "good"); // microcode in front
    EXPECT_EQ(verdict(whole + Bytes((4 - whole.size() % 4) % 4) + archive()), "good");
    EXPECT_EQ(verdict(whole + whole), "good");
    if (GetParam().names[0] == 0) return;
    std::mt19937 noise(3);
    for (int i = 0; i < 60; ++i) {
        std::size_t const size = 10 + noise() % (whole.size() - 11);
        std::string const says = verdict(cut(whole, size));
        EXPECT_TRUE(says.starts_with(fmt::format("initrd 'x' is cut off: its {} does not end", GetParam().names)))
            << size << " of " << whole.size() << ": " << says;
    }
}
INSTANTIATE_TEST_SUITE_P(Programs, Compressed,
                         testing::Values(Program{"gzip -c", "gzip data"}, Program{"gzip -9 -c", "gzip data"},
                                         Program{"bzip2 -c", "bzip2 data"}, Program{"xz -c --check=crc32", "xz data"},
                                         Program{"lzma -c", ""}, Program{"lzop -c", "lzo data"},
                                         Program{"lz4 -l -c", "lz4 data"}, Program{"zstd -c", "zstd data"},
                                         Program{"zstd -19 --no-check -c", "zstd data"}),
                         [](auto const& instance) {
                             std::string name = instance.param.command;
                             std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
                             return name;
                         });

TEST(InitrdCheck, damage_in_gzip_data_is_found) {
    Bytes whole = through("gzip -c");
    if (whole.empty()) GTEST_SKIP() << "no gzip";
    whole[whole.size() / 2] ^= 0x55;
    EXPECT_EQ(verdict(whole), "initrd 'x' is damaged: its gzip data makes no sense from offset 0 on");
}

TEST(InitrdCheck, images_of_file_systems_are_known_by_their_superblocks) {
    struct {
        std::size_t offset;
        std::string magic;
    } const images[] = {{0, "-rom1fs-"},    {0, "\x45\x3d\xcd\x28"}, {512, "\x45\x3d\xcd\x28"}, {0, "hsqs"},
                        {1040, "\x7f\x13"}, {1040, "\x78\x24"},      {1048, "\x5a\x4d"},        {1080, "\x53\xef"}};
    for (auto const& image : images) {
        Bytes bytes(4096);
        std::copy(image.magic.begin(), image.magic.end(), bytes.begin() + std::ptrdiff_t(image.offset));
        EXPECT_EQ(verdict(bytes), "good") << image.magic;
    }
    Bytes ext2(4096);
    store_le(&ext2[1080], std::uint16_t(0xef53));
    store_le(&ext2[1028], std::uint32_t(5)); // blocks of 1 KiB
    EXPECT_EQ(verdict(ext2), "initrd 'x' is cut off: the ext2 image in it has 5120 bytes, the file 4096");
}

TEST(InitrdCheck, noise_behind_any_magic_ends_in_a_verdict) {
    std::mt19937 noise(4);
    for (std::string const magic :
         {"070701", "\x1f\x8b\x08", "BZh", "\xfd\x37zXZ", "\x89LZO", "\x02\x21\x4c\x18", "\x28\xb5\x2f\xfd", "hsqs"})
        for (int i = 0; i < 200; ++i) {
            Bytes bytes(1 + noise() % 3000);
            for (std::uint8_t& b : bytes) b = std::uint8_t(noise());
            std::copy_n(magic.begin(), std::min(magic.size(), bytes.size()), bytes.begin());
            EXPECT_FALSE(verdict(bytes).empty());
        }
}

} // namespace
} // namespace vmm::firmware
