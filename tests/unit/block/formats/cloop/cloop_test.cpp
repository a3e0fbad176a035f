// cloop: images made here and by Debian's create_compressed_fs, hostile tables.
#include "tests/support/image_conformance.h"
#include "vmm/base/endian.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

ImageProfile cloop_profile() {
    ImageProfile profile;
    profile.format = "cloop";
    return profile;
}

void put(std::string& out, std::uint64_t value, unsigned bytes) {
    while (bytes--) out += char(value >> bytes * 8);
}

std::string make_cloop(std::vector<std::uint8_t> const& content, std::uint32_t block) {
    std::string out = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n", data;
    out.resize(128);
    std::uint32_t count = std::uint32_t(content.size() / block);
    put(out, block, 4);
    put(out, count, 4);
    std::uint64_t start = 136 + (count + 1ull) * 8;
    for (std::uint32_t i = 0; i <= count; ++i) {
        put(out, start + data.size(), 8);
        if (i == count) break;
        uLongf size = compressBound(block);
        std::string packed(size, '\0');
        compress(reinterpret_cast<Bytef*>(packed.data()), &size, content.data() + std::size_t(i) * block, block);
        data += packed.substr(0, size);
    }
    return out + data;
}

TEST(Cloop, blocks_are_read_in_any_order) {
    BlockBench bench;
    std::vector<std::uint8_t> content = patchy_noise(1, 40 * 4096);
    std::ofstream(bench.path("c"), std::ios::binary) << make_cloop(content, 4096);
    OpenOptions options;
    options.filename = bench.path("c");
    options.read_only = true;
    auto image = bench.run(open_image(bench.context, options)).value();
    EXPECT_EQ(image->format_name(), "cloop");
    EXPECT_EQ(read_whole(bench, *image).value(), content);
    std::vector<std::uint8_t> found(5000);
    ASSERT_TRUE(bench.run(read_bytes(*image, 4000, found)).ok());
    EXPECT_TRUE(std::equal(found.begin(), found.end(), content.begin() + 4000));
    EXPECT_FALSE(bench.run(write_bytes(*image, 0, found)).ok());
}

TEST(Cloop, read_write_is_refused_with_a_hint) {
    BlockBench bench;
    std::ofstream(bench.path("c"), std::ios::binary) << make_cloop(patchy_noise(1, 4096), 4096);
    auto opened = open_profile_image(bench, cloop_profile(), "c");
    ASSERT_FALSE(opened.ok());
    EXPECT_NE(opened.error().message().find("read-only"), std::string::npos);
}

TEST(Cloop, images_of_create_compressed_fs_are_read) {
    if (run_command("which create_compressed_fs").exit_code != 0) GTEST_SKIP() << "cloop-utils is not installed";
    BlockBench bench;
    std::vector<std::uint8_t> content = patchy_noise(2, 16 * 65536);
    std::ofstream(bench.path("raw"), std::ios::binary)
        .write(reinterpret_cast<char const*>(content.data()), std::streamsize(content.size()));
    auto made = run_command("create_compressed_fs -B 65536 " + bench.path("raw") + " " + bench.path("c"));
    ASSERT_EQ(made.exit_code, 0) << made.output;
    auto opened = open_profile_image(bench, cloop_profile(), "c", true);
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    EXPECT_EQ(read_whole(bench, **opened).value(), content);
}

TEST(Cloop, damage_is_an_error_not_a_crash) {
    std::string good = make_cloop(patchy_noise(3, 8 * 4096), 4096);
    struct Case {
        std::size_t at;
        std::uint64_t value;
        unsigned bytes;
        char const* message;
    };
    for (Case c : {Case{128, 0, 4, "block_size"}, Case{128, 0xfffffe00, 4, "block_size"}, Case{132, 0, 4, "num_blocks"},
                   Case{132, 0xffffffff, 4, "num_blocks"}, Case{132, 1 << 20, 4, "offset table"},
                   Case{144, 1, 8, "not in order"}, Case{144, ~0ull, 8, "not in order"}}) {
        BlockBench bench;
        std::string bad = good, value;
        put(value, c.value, c.bytes);
        bad.replace(c.at, c.bytes, value);
        std::ofstream(bench.path("c"), std::ios::binary) << bad;
        auto opened = open_profile_image(bench, cloop_profile(), "c", true);
        ASSERT_FALSE(opened.ok()) << c.message;
        EXPECT_NE(opened.error().message().find(c.message), std::string::npos) << opened.error().message();
    }
    BlockBench bench;
    std::string bad = good;
    bad[136 + 9 * 8 + 4] ^= 0x55;
    std::ofstream(bench.path("c"), std::ios::binary) << bad;
    auto image = open_profile_image(bench, cloop_profile(), "c", true).value();
    std::vector<std::uint8_t> found(4096);
    EXPECT_EQ(bench.run(read_bytes(*image, 0, found)).error().errno_value(), EIO);
    EXPECT_TRUE(bench.run(read_bytes(*image, 4096, found)).ok());
}

} // namespace
