// VMDK: every sub-format through the conformance suite, descriptors, parents, streams, hostile extents.
#include "block/core/capabilities.h"
#include "block/core/image_info.h"
#include "block/formats/vmdk/descriptor.h"
#include "block/formats/vmdk/header.h"
#include "tests/support/image_conformance.h"
#include "vmm/base/checked.h"

#include <gtest/gtest.h>

#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

ImageProfile profile_of(std::string options, std::uint64_t seed) {
    ImageProfile profile;
    profile.format = "vmdk";
    profile.create_options = std::move(options);
    profile.seed = seed;
    return profile;
}

TEST(Vmdk, monolithic_sparse_conforms) {
    for (std::uint64_t seed = 1; seed <= 2; ++seed) image_conforms(profile_of("", seed));
}
TEST(Vmdk, monolithic_flat_conforms) { image_conforms(profile_of("subformat=monolithicFlat", 1)); }
TEST(Vmdk, two_gb_extents_conform) {
    image_conforms(profile_of("subformat=twoGbMaxExtentSparse", 1));
    image_conforms(profile_of("subformat=twoGbMaxExtentFlat", 1));
}
TEST(Vmdk, zeroed_grains_conform) { image_conforms(profile_of("zeroed_grain=on", 4)); }
TEST(Vmdk, child_of_another_image_conforms) {
    for (char const* options : {"", "zeroed_grain=on"}) {
        ImageProfile profile = profile_of(options, 6);
        profile.backing_format = "vmdk";
        profile.qemu_reads = false; // its conversions know no parent
        image_conforms(profile);
    }
}
TEST(Vmdk, power_cuts_lose_nothing_that_was_flushed) { image_survives_power_cuts(profile_of("", 11)); }
TEST(Vmdk, damaged_images_end_in_an_answer) {
    image_survives_corruption(profile_of("", 3), 14000, 300);
    image_survives_corruption(profile_of("subformat=monolithicFlat", 4), 500, 200);
}

TEST(Vmdk, options_are_accepted_by_qemu_too) {
    if (!have_qemu_img()) GTEST_SKIP();
    for (char const* options : {"compat6=on", "adapter_type=lsilogic,hwversion=9,toolsversion=9",
                                "adapter_type=buslogic", "adapter_type=legacyESX", "subformat=streamOptimized"}) {
        BlockBench bench;
        ASSERT_TRUE(create_profile_image(bench, profile_of(options, 1), "x.vmdk").ok());
        CommandOutcome ours = run_command("qemu-img info " + bench.path("x.vmdk"));
        EXPECT_EQ(ours.exit_code, 0) << ours.output;
        EXPECT_NE(ours.output.find("virtual size: 5 MiB (5243392 bytes)"), std::string::npos) << ours.output;
    }
}

TEST(Vmdk, images_larger_than_an_extent_are_split_and_written_across_the_seam) {
    for (char const* options : {"subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat"}) {
        BlockBench bench;
        ImageProfile profile = profile_of(options, 1);
        profile.size_bytes = 5 * GiB;
        ASSERT_TRUE(create_profile_image(bench, profile, "x.vmdk").ok());
        auto image = open_profile_image(bench, profile, "x.vmdk").value();
        EXPECT_EQ(image->size_bytes(), 5 * GiB);
        std::vector<std::uint8_t> noise = patchy_noise(1, 300000), found(300000);
        ASSERT_TRUE(bench.run(write_bytes(*image, 2 * GiB - 100001, noise)).ok());
        ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
        image = open_profile_image(bench, profile, "x.vmdk", true).value();
        ASSERT_TRUE(bench.run(read_bytes(*image, 2 * GiB - 100001, found)).ok());
        EXPECT_EQ(found, noise);
        ImageInfo info = bench.run(collect_info(*image)).value();
        EXPECT_EQ(info.details.specific_data.find("extents")->as_list()->size(), 3u);
    }
}

std::unique_ptr<Image> make_stream(BlockBench& bench, std::vector<std::uint8_t> const& content) {
    ImageProfile profile = profile_of("subformat=streamOptimized", 1);
    profile.size_bytes = content.size();
    EXPECT_TRUE(create_profile_image(bench, profile, "s.vmdk").ok());
    auto image = open_profile_image(bench, profile, "s.vmdk").value();
    CompressedWrites* compressed = image->capabilities().compressed;
    EXPECT_EQ(compressed->cluster_size_bytes(), 65536u);
    for (std::size_t at = 0; at < content.size(); at += 65536) {
        ConstBytes part = ConstBytes(content).subspan(at, std::min<std::size_t>(65536, content.size() - at));
        if (is_zero(part)) continue;
        IoVector one(part);
        EXPECT_TRUE(bench.run(compressed->write_compressed(at, one.const_spans())).ok());
    }
    EXPECT_TRUE(bench.run(compressed->finish_compressed()).ok());
    return image;
}

TEST(Vmdk, streams_are_written_once_and_read_back_by_us_and_by_qemu) {
    BlockBench bench;
    std::vector<std::uint8_t> content = patchy_noise(2, 3 * MiB + 1536);
    auto image = make_stream(bench, content);
    EXPECT_EQ(read_whole(bench, *image).value(), content);
    std::vector<std::uint8_t> more(512, 1);
    EXPECT_EQ(bench.run(write_bytes(*image, 0, more)).ok(), is_zero(ConstBytes(content).first(65536)));
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    if (!have_qemu_img()) GTEST_SKIP();
    std::ofstream(bench.path("raw"), std::ios::binary)
        .write(reinterpret_cast<char const*>(content.data()), std::streamsize(content.size()));
    auto theirs = run_command("cd " + bench.path("") +
                              " && qemu-img convert -f raw -O vmdk -o "
                              "subformat=streamOptimized raw t.vmdk && qemu-img check t.vmdk");
    ASSERT_EQ(theirs.exit_code, 0) << theirs.output;
    image = open_profile_image(bench, profile_of("", 1), "t.vmdk", true).value();
    EXPECT_EQ(read_whole(bench, *image).value(), content);
}

TEST(Vmdk, our_stream_is_identical_for_qemu) {
    if (!have_qemu_img()) GTEST_SKIP();
    BlockBench bench;
    std::vector<std::uint8_t> content = patchy_noise(3, 2 * MiB);
    ASSERT_TRUE(bench.run(close_image(make_stream(bench, content))).ok());
    std::ofstream(bench.path("raw"), std::ios::binary)
        .write(reinterpret_cast<char const*>(content.data()), std::streamsize(content.size()));
    auto same =
        run_command("cd " + bench.path("") + " && qemu-img compare -f raw -F vmdk raw s.vmdk && qemu-img check s.vmdk");
    EXPECT_EQ(same.exit_code, 0) << same.output;
}

TEST(Vmdk, child_refuses_a_parent_that_was_changed) {
    BlockBench bench;
    ImageProfile profile = profile_of("", 1);
    profile.backing_format = "vmdk";
    ASSERT_TRUE(create_profile_image(bench, profile, "child").ok());
    std::vector<std::uint8_t> data(512, 7);
    {
        auto base = open_profile_image(bench, profile_of("", 1), "child.base").value();
        ASSERT_TRUE(bench.run(write_bytes(*base, 0, data)).ok());
        ASSERT_TRUE(bench.run(close_image(std::move(base))).ok());
    }
    auto child = open_profile_image(bench, profile, "child", true).value();
    auto read = bench.run(read_bytes(*child, 0, data));
    ASSERT_FALSE(read.ok());
    EXPECT_NE(read.error().message().find("CID"), std::string::npos);
}

TEST(VmdkDescriptor, is_recognised_and_parsed) {
    std::string text = "# Disk DescriptorFile\nversion=1\nCID=0000000a\nparentCID=0000000b\ncreateType=\"vmfs\"\n"
                       "parentFileNameHint=\"base file.vmdk\"\nRW 100 VMFS \"a b-flat.vmdk\"\nRDONLY 7 ZERO\n"
                       "RW 9 FLAT \"x\" 63\n";
    EXPECT_TRUE(vmdk::looks_like_descriptor(text));
    EXPECT_FALSE(vmdk::looks_like_descriptor("# comment only\nfoo=1\n"));
    vmdk::Descriptor d = vmdk::parse_descriptor(text, "x").value();
    EXPECT_EQ(d.cid, 10u);
    EXPECT_EQ(d.parent_cid, 11u);
    EXPECT_EQ(text.substr(d.cid_position, 8), "0000000a");
    EXPECT_EQ(d.parent_hint, "base file.vmdk");
    ASSERT_EQ(d.extents.size(), 3u);
    EXPECT_EQ(d.extents[0].filename, "a b-flat.vmdk");
    EXPECT_EQ(d.extents[1].type, "ZERO");
    EXPECT_FALSE(d.extents[1].writable);
    EXPECT_EQ(d.extents[2].offset_sectors, 63u);
    for (char const* bad : {"RW x FLAT \"a\"", "RW 1 FOO \"a\"", "RW 1 FLAT", "RW 9999999999999999999 FLAT \"a\"",
                            "RW 1 FLAT \"a\" x", "CID=xyz", "NOACCESS 1 FLAT \"a\""})
        EXPECT_FALSE(vmdk::parse_descriptor(bad, "x").ok()) << bad;
}

TEST(Vmdk, esx_sparse_extent_is_read) {
    BlockBench bench;
    vmdk::CowdHeader header;
    header.capacity = 64;
    header.grain_size = 1;
    header.directory = 4;
    header.directory_entries = 1;
    std::string file(512 * (8 + 32 + 2), '\0');
    std::memcpy(file.data(), &header, sizeof header);
    file[4 * 512] = 8;          // the only grain table
    file[8 * 512 + 5 * 4] = 40; // sector 5 lies in sector 40
    file.replace(40 * 512, 512, std::string(512, 'x'));
    std::ofstream(bench.path("d-delta.vmdk"), std::ios::binary) << file;
    std::ofstream(bench.path("d.vmdk")) << "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
                                           "createType=\"vmfsSparse\"\nRW 64 VMFSSPARSE \"d-delta.vmdk\"\n";
    for (char const* name : {"d.vmdk", "d-delta.vmdk"}) {
        auto image = open_profile_image(bench, profile_of("", 1), name, true).value();
        std::vector<std::uint8_t> all = read_whole(bench, *image).value();
        ASSERT_EQ(all.size(), 64u * 512);
        EXPECT_EQ(all[5 * 512], 'x');
        EXPECT_EQ(all[6 * 512], 0);
    }
}

TEST(Vmdk, hostile_headers_are_refused_by_field) {
    struct Case {
        char const* field;
        void (*damage)(vmdk::SparseHeader&);
    };
    Case const cases[] = {
        {"version", [](vmdk::SparseHeader& h) { h.version = 9; }},
        {"grainSize", [](vmdk::SparseHeader& h) { h.grain_size = 3; }},
        {"grainSize", [](vmdk::SparseHeader& h) { h.grain_size = std::uint64_t(1) << 40; }},
        {"numGTEsPerGT", [](vmdk::SparseHeader& h) { h.entries_per_table = 0; }},
        {"capacity", [](vmdk::SparseHeader& h) { h.capacity = std::uint64_t(1) << 62; }},
        {"gdOffset", [](vmdk::SparseHeader& h) { h.directory = 1 << 20; }},
        {"descriptor", [](vmdk::SparseHeader& h) { h.descriptor_size = 1 << 30; }},
        {"line ends", [](vmdk::SparseHeader& h) { h.newline_test[0] = ' '; }},
        {"compressAlgorithm", [](vmdk::SparseHeader& h) { h.flags = vmdk::flag_compressed; }},
        {"footer", [](vmdk::SparseHeader& h) { h.directory = vmdk::gd_at_end; }},
    };
    for (Case const& c : cases) {
        BlockBench bench;
        ASSERT_TRUE(create_profile_image(bench, profile_of("", 1), "v").ok());
        std::fstream file(bench.path("v"), std::ios::in | std::ios::out | std::ios::binary);
        vmdk::SparseHeader header;
        file.read(reinterpret_cast<char*>(&header), sizeof header);
        c.damage(header);
        file.seekp(0).write(reinterpret_cast<char const*>(&header), sizeof header);
        file.close();
        auto opened = open_profile_image(bench, profile_of("", 1), "v", true);
        ASSERT_FALSE(opened.ok()) << c.field;
        EXPECT_NE(opened.error().message().find(c.field), std::string::npos) << opened.error().message();
    }
}

} // namespace
