// cow: the header of every version and byte order, over a backing file.
#include "block/formats/cow/header.h"
#include "tests/support/image_conformance.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

using namespace vmm;
using namespace vmm::block;

namespace {

constexpr std::uint64_t disk_bytes = 3000 * 512;

struct Kind {
    char const* name;
    unsigned version;
    bool little;
    std::size_t backing, size, sector_size, header_bytes, bitmap, alignment;
};
constexpr Kind kinds[] = {
    {"version 1 of a PC", 1, true, 8, 268, 276, 280, 280, 512},
    {"version 1 big-endian", 1, false, 8, 268, 276, 280, 280, 512},
    {"version 2 packed", 2, false, 8, 1036, 1044, 1048, 1048, 512},
    {"version 2 of QEMU", 2, false, 8, 1040, 1048, 1056, 1056, 512},
    {"version 3", 3, false, 32, 12, 20, 4128, 8192, 4096},
};

void put(std::string& out, std::size_t at, std::uint64_t value, unsigned bytes, bool little) {
    for (unsigned i = 0; i < bytes; ++i) out[at + i] = char(value >> 8 * (little ? i : bytes - 1 - i));
}

std::string header_of(Kind const& k, std::string const& backing) {
    std::string out(k.bitmap, '\0');
    put(out, 0, 0x4f4f4f4d, 4, k.little);
    put(out, 4, k.version, 4, k.little);
    out.replace(k.backing, backing.size(), backing);
    put(out, k.size, disk_bytes, 8, k.little);
    put(out, k.sector_size, 512, 4, k.little);
    if (k.version == 3) put(out, 24, k.alignment, 4, k.little);
    return out;
}

TEST(Cow, every_header_version_is_read_over_its_backing_file) {
    for (Kind const& kind : kinds) {
        SCOPED_TRACE(kind.name);
        BlockBench bench;
        std::vector<std::uint8_t> expected = patchy_noise(1, disk_bytes);
        std::ofstream(bench.path("base"), std::ios::binary)
            .write(reinterpret_cast<char const*>(expected.data()), std::streamsize(expected.size()));
        std::string file = header_of(kind, "base");
        std::string bitmap(3000 / 8, '\0');
        std::uint64_t data = align_up<std::uint64_t>(kind.bitmap + bitmap.size(), kind.alignment);
        std::mt19937_64 random(7);
        std::vector<std::uint8_t> noise = patchy_noise(2, disk_bytes);
        for (std::uint64_t sector = 0; sector < 3000; ++sector) {
            if (random() % 3) continue;
            bitmap[sector / 8] = char(bitmap[sector / 8] | 1 << sector % 8);
            std::copy_n(noise.begin() + std::ptrdiff_t(sector * 512), 512,
                        expected.begin() + std::ptrdiff_t(sector * 512));
        }
        file += bitmap;
        file.resize(data);
        file.append(noise.begin(), noise.end());
        std::ofstream(bench.path("c"), std::ios::binary) << file;
        OpenOptions options;
        options.filename = bench.path("c");
        options.read_only = true;
        auto opened = bench.run(open_image(bench.context, options));
        ASSERT_TRUE(opened.ok()) << opened.error().message();
        EXPECT_EQ((*opened)->format_name(), "cow");
        EXPECT_EQ(read_whole(bench, **opened).value(), expected);
    }
}

TEST(Cow, hostile_fields_are_named) {
    Kind const& kind = kinds[4];
    auto message = [](std::string const& text) {
        auto result = cow::decode(ConstBytes(reinterpret_cast<std::uint8_t const*>(text.data()), text.size()), "x");
        return result.ok() ? std::string() : result.error().message();
    };
    std::string good = header_of(kind, "b"), bad = good;
    EXPECT_EQ(message(good), "");
    put(bad, kind.size, ~0ull, 8, false);
    EXPECT_NE(message(bad).find("size"), std::string::npos);
    bad = good;
    put(bad, kind.sector_size, 4096, 4, false);
    EXPECT_NE(message(bad).find("sectorsize"), std::string::npos);
    bad = good;
    put(bad, 24, 3, 4, false);
    EXPECT_NE(message(bad).find("alignment"), std::string::npos);
    EXPECT_NE(message(good.substr(0, 100)).find("cut off"), std::string::npos);
    EXPECT_NE(message("OOOM").find("not in cow format"), std::string::npos);
}

} // namespace
