// VHD: conformance of both kinds, sizes as QEMU rounds them, the footer's copy, hostile headers.
#include "block/formats/vpc/header.h"
#include "tests/support/image_conformance.h"
#include "vmm/base/checked.h"

#include <gtest/gtest.h>

#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

ImageProfile profile_of(std::string options, std::uint64_t seed) {
    ImageProfile profile;
    profile.format = "vpc";
    profile.create_options = std::move(options);
    profile.seed = seed;
    profile.size_may_be_rounded = true;
    return profile;
}

TEST(Vpc, dynamic_conforms) {
    for (std::uint64_t seed = 1; seed <= 2; ++seed) image_conforms(profile_of("", seed));
}
TEST(Vpc, fixed_and_exact_sizes_conform) {
    image_conforms(profile_of("subformat=fixed", 3));
    image_conforms(profile_of("force_size=on", 4));
    image_conforms(profile_of("force_size=on,subformat=fixed", 5));
}
TEST(Vpc, power_cuts_lose_nothing_that_was_flushed) { image_survives_power_cuts(profile_of("", 11)); }
TEST(Vpc, damaged_images_end_in_an_answer) { image_survives_corruption(profile_of("", 3), 2100, 300); }

// Measured on qemu-img 7.2.
TEST(Vpc, sizes_are_rounded_to_a_geometry) {
    struct Case {
        std::uint64_t asked, size;
        unsigned cylinders, heads, sectors;
    };
    for (Case c :
         {Case{1048576, 1079296, 31, 4, 17}, Case{5243392, 5257216, 151, 4, 17}, Case{67108864, 67125248, 964, 8, 17},
          Case{528482304, 528482304, 1024, 16, 63}, Case{42949672960, 42951106560, 20561, 16, 255},
          Case{136365211648, 136365219840, 65279, 16, 255}, Case{214748364800, 214748364800, 65535, 16, 255}}) {
        BlockBench bench;
        ImageProfile profile = profile_of("", 1);
        profile.size_bytes = c.asked;
        ASSERT_TRUE(create_profile_image(bench, profile, "v").ok());
        auto image = open_profile_image(bench, profile, "v", true).value();
        EXPECT_EQ(image->size_bytes(), c.size);
        vpc::Footer footer;
        std::ifstream(bench.path("v"), std::ios::binary).read(reinterpret_cast<char*>(&footer), sizeof footer);
        EXPECT_EQ(footer.cylinders, c.cylinders);
        EXPECT_EQ(footer.heads, c.heads);
        EXPECT_EQ(footer.sectors, c.sectors);
    }
    BlockBench bench;
    ImageProfile profile = profile_of("", 1);
    profile.size_bytes = 2041 * GiB;
    EXPECT_EQ(create_profile_image(bench, profile, "v").error().message(),
              "The image size is too large for file format 'vpc'");
}

TEST(Vpc, a_lost_footer_is_replaced_by_its_copy) {
    BlockBench bench;
    ImageProfile profile = profile_of("", 1);
    ASSERT_TRUE(create_profile_image(bench, profile, "v").ok());
    std::vector<std::uint8_t> data(4096, 9), found(4096);
    auto image = open_profile_image(bench, profile, "v").value();
    ASSERT_TRUE(bench.run(write_bytes(*image, 8192, data)).ok());
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    std::filesystem::resize_file(bench.path("v"), std::filesystem::file_size(bench.path("v")) - 512);
    image = open_profile_image(bench, profile, "v").value();
    ASSERT_TRUE(bench.run(read_bytes(*image, 8192, found)).ok());
    EXPECT_EQ(found, data);
    // The next block brings the footer back.
    ASSERT_TRUE(bench.run(write_bytes(*image, 4 * MiB, data)).ok());
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    vpc::Footer footer;
    std::ifstream file(bench.path("v"), std::ios::binary);
    file.seekg(-512, std::ios::end).read(reinterpret_cast<char*>(&footer), sizeof footer);
    EXPECT_TRUE(vpc::has_cookie(footer));
    EXPECT_EQ(footer.checksum, vpc::checksum_of(footer));
}

TEST(Vpc, hostile_headers_are_refused_by_field) {
    struct Case {
        char const* field;
        void (*damage)(vpc::Footer&, vpc::DynamicHeader&);
    };
    Case const cases[] = {
        {"disk type", [](vpc::Footer& f, vpc::DynamicHeader&) { f.type = 4; }},
        {"disk type", [](vpc::Footer& f, vpc::DynamicHeader&) { f.type = 77; }},
        {"current size", [](vpc::Footer& f, vpc::DynamicHeader&) { f.cylinders = 0, f.current_size = UINT64_MAX; }},
        {"data offset", [](vpc::Footer& f, vpc::DynamicHeader&) { f.data_offset = UINT64_MAX; }},
        {"dynamic header is missing", [](vpc::Footer&, vpc::DynamicHeader& h) { h.cookie[0] = 'x'; }},
        {"block size", [](vpc::Footer&, vpc::DynamicHeader& h) { h.block_size = 3; }},
        {"block size", [](vpc::Footer&, vpc::DynamicHeader& h) { h.block_size = 1u << 31; }},
        {"max table entries", [](vpc::Footer&, vpc::DynamicHeader& h) { h.entries = 1; }},
        {"max table entries", [](vpc::Footer&, vpc::DynamicHeader& h) { h.entries = UINT32_MAX; }},
        {"table offset", [](vpc::Footer&, vpc::DynamicHeader& h) { h.table_offset = UINT64_MAX; }},
        {"block table", [](vpc::Footer&, vpc::DynamicHeader& h) { h.table_offset = 1 << 30; }},
    };
    for (Case const& c : cases) {
        BlockBench bench;
        ASSERT_TRUE(create_profile_image(bench, profile_of("", 1), "v").ok());
        std::fstream file(bench.path("v"), std::ios::in | std::ios::out | std::ios::binary);
        struct {
            vpc::Footer footer;
            vpc::DynamicHeader header;
        } start;
        file.read(reinterpret_cast<char*>(&start), sizeof start);
        c.damage(start.footer, start.header);
        start.footer.checksum = vpc::checksum_of(start.footer);
        file.seekp(0).write(reinterpret_cast<char const*>(&start), sizeof start);
        file.seekp(-512, std::ios::end).write(reinterpret_cast<char const*>(&start.footer), sizeof start.footer);
        file.close();
        auto opened = open_profile_image(bench, profile_of("", 1), "v", true);
        ASSERT_FALSE(opened.ok()) << c.field;
        EXPECT_NE(opened.error().message().find(c.field), std::string::npos) << opened.error().message();
    }
}

} // namespace
