// VDI: conformance of both kinds, growing beyond the block map, hostile headers.
#include "block/core/capabilities.h"
#include "block/core/image_info.h"
#include "block/formats/vdi/header.h"
#include "tests/support/image_conformance.h"
#include "vmm/base/checked.h"

#include <gtest/gtest.h>

#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

ImageProfile profile_of(std::string options, std::uint64_t seed) {
    ImageProfile profile;
    profile.format = "vdi";
    profile.create_options = std::move(options);
    profile.grows = true;
    profile.seed = seed;
    return profile;
}

TEST(Vdi, dynamic_conforms) {
    for (std::uint64_t seed = 1; seed <= 2; ++seed) image_conforms(profile_of("", seed));
}
TEST(Vdi, static_conforms) { image_conforms(profile_of("static=on", 7)); }
TEST(Vdi, power_cuts_lose_nothing_that_was_flushed) { image_survives_power_cuts(profile_of("", 11)); }
TEST(Vdi, damaged_images_end_in_an_answer) { image_survives_corruption(profile_of("", 3), 1200, 400); }

TEST(Vdi, growing_past_the_room_of_the_block_map_moves_blocks_and_keeps_data) {
    for (std::string options : {"", "static=on"}) {
        BlockBench bench;
        ImageProfile profile = profile_of(options, 5);
        profile.size_bytes = 3 * MiB;
        ASSERT_TRUE(create_profile_image(bench, profile, "v").ok());
        auto image = open_profile_image(bench, profile, "v").value();
        std::vector<std::uint8_t> noise = patchy_noise(1, 3 * MiB), found(3 * MiB);
        ASSERT_TRUE(bench.run(write_bytes(*image, 0, noise)).ok());
        ResizeRequest request{.new_size_bytes = options.empty() ? 600 * GiB : 200 * MiB};
        auto resized = bench.run(image->capabilities().resizable->resize(request));
        ASSERT_TRUE(resized.ok()) << resized.error().message();
        std::uint64_t far = request.new_size_bytes - 3 * MiB;
        ASSERT_TRUE(bench.run(write_bytes(*image, far, noise)).ok());
        ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
        image = open_profile_image(bench, profile, "v").value();
        EXPECT_EQ(image->size_bytes(), request.new_size_bytes);
        for (std::uint64_t at : {std::uint64_t(0), far}) {
            ASSERT_TRUE(bench.run(read_bytes(*image, at, found)).ok());
            EXPECT_EQ(found, noise) << at;
        }
        ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
        if (!have_qemu_img()) continue;
        CommandOutcome outcome = run_command("qemu-img check -f vdi " + bench.path("v"));
        EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    }
}

// Writes `header` with `map_bytes` of block map and tries to open it: the error, or "".
std::string open_error(vdi::Header const& header, std::size_t map_bytes) {
    BlockBench bench;
    std::ofstream(bench.path("v"), std::ios::binary)
        .write(reinterpret_cast<char const*>(&header), sizeof header)
        .write(std::string(map_bytes, '\xff').data(), std::streamsize(map_bytes));
    ImageProfile profile = profile_of("", 1);
    auto opened = open_profile_image(bench, profile, "v", true);
    return opened.ok() ? "" : opened.error().message();
}

TEST(Vdi, hostile_headers_are_refused_by_field) {
    vdi::Header good;
    good.disk_size = 5 * MiB;
    good.blocks_in_image = 5;
    EXPECT_EQ(open_error(good, 512), "");
    struct Case {
        char const* field;
        void (*damage)(vdi::Header&);
    };
    Case const cases[] = {
        {"version", [](vdi::Header& h) { h.version = 0x00020000; }},
        {"image_type", [](vdi::Header& h) { h.image_type = 4; }},
        {"sector_size", [](vdi::Header& h) { h.sector_size = 4096; }},
        {"block_size", [](vdi::Header& h) { h.block_size = 1; }},
        {"blocks_in_image", [](vdi::Header& h) { h.blocks_in_image = 0xffffffff; }},
        {"offset_bmap", [](vdi::Header& h) { h.offset_bmap = 3; }},
        {"offset_data", [](vdi::Header& h) { h.offset_data = 0x200; }},
        {"disk_size", [](vdi::Header& h) { h.disk_size = std::uint64_t(1) << 63; }},
        {"blocks_allocated", [](vdi::Header& h) { h.blocks_allocated = 0xffffffff; }},
        {"parent_id", [](vdi::Header& h) { h.parent_id[3] = 1; }},
        {"end of the file", [](vdi::Header& h) { h.blocks_in_image = 1000, h.offset_data = 1 << 20; }},
    };
    for (Case const& c : cases) {
        vdi::Header bad = good;
        c.damage(bad);
        EXPECT_NE(open_error(bad, 512).find(c.field), std::string::npos) << c.field << ": " << open_error(bad, 512);
    }
}

TEST(Vdi, info_shows_what_qemu_shows) {
    BlockBench bench;
    ImageProfile profile = profile_of("", 1);
    ASSERT_TRUE(create_profile_image(bench, profile, "v").ok());
    auto image = open_profile_image(bench, profile, "v", true).value();
    ImageInfo info = bench.run(collect_info(*image)).value();
    EXPECT_EQ(info.details.cluster_size_bytes, std::uint64_t(1) << 20);
    EXPECT_EQ(info.format, "vdi");
}

} // namespace
