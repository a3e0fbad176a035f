// qcow (version 1): conformance, backing files, compression, encryption, hostile headers.
#include "block/core/capabilities.h"
#include "block/core/image_info.h"
#include "block/core/secret_store.h"
#include "block/formats/qcow/header.h"
#include "tests/support/image_conformance.h"
#include "vmm/base/checked.h"

#include <gtest/gtest.h>

#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

ImageProfile profile_of(std::uint64_t seed) {
    ImageProfile profile;
    profile.format = "qcow";
    profile.seed = seed;
    return profile;
}

TEST(Qcow, conforms) {
    for (std::uint64_t seed = 1; seed <= 2; ++seed) image_conforms(profile_of(seed));
}
TEST(Qcow, overlay_conforms) {
    for (char const* backing : {"raw", "qcow"}) {
        ImageProfile profile = profile_of(4);
        profile.backing_format = backing;
        profile.qemu_reads = false;
        image_conforms(profile);
    }
}
TEST(Qcow, encrypted_image_conforms) {
    ImageProfile profile = profile_of(5);
    profile.create_options = "encrypt.format=aes,encrypt.key-secret=sec0";
    profile.open_options = "encrypt.key-secret=sec0";
    profile.qemu_reads = false;
    image_conforms(profile);
}
TEST(Qcow, power_cuts_lose_nothing_that_was_flushed) { image_survives_power_cuts(profile_of(11)); }
TEST(Qcow, damaged_images_end_in_an_answer) { image_survives_corruption(profile_of(3), 9000, 300); }

TEST(Qcow, compressed_clusters_are_read_rewritten_and_known_to_qemu) {
    BlockBench bench;
    ImageProfile profile = profile_of(1);
    profile.size_bytes = 2 * MiB;
    ASSERT_TRUE(create_profile_image(bench, profile, "c").ok());
    auto image = open_profile_image(bench, profile, "c").value();
    std::vector<std::uint8_t> content = patchy_noise(1, 2 * MiB);
    CompressedWrites* compressed = image->capabilities().compressed;
    for (std::size_t at = 0; at < content.size(); at += 4096) {
        IoVector part(ConstBytes(content).subspan(at, 4096));
        ASSERT_TRUE(bench.run(compressed->write_compressed(at, part.const_spans())).ok());
    }
    ASSERT_TRUE(bench.run(compressed->finish_compressed()).ok());
    EXPECT_EQ(read_whole(bench, *image).value(), content);
    std::vector<std::uint8_t> data(100, 0x77);
    ASSERT_TRUE(bench.run(write_bytes(*image, 5000, data)).ok());
    std::ranges::copy(data, content.begin() + 5000);
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    image = open_profile_image(bench, profile, "c", true).value();
    EXPECT_EQ(read_whole(bench, *image).value(), content);
    EXPECT_LT(std::filesystem::file_size(bench.path("c")), 2 * MiB);
    if (!have_qemu_img()) GTEST_SKIP();
    std::ofstream(bench.path("raw"), std::ios::binary)
        .write(reinterpret_cast<char const*>(content.data()), std::streamsize(content.size()));
    auto outcome = run_command("cd " + bench.path("") + " && qemu-img compare -f raw -F qcow raw c");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    // qemu-img 7.2 writes the whole image and then fails without a word: only what it wrote counts.
    run_command("cd " + bench.path("") + " && qemu-img convert -c -f raw -O qcow raw d");
    image = open_profile_image(bench, profile, "d", true).value();
    EXPECT_EQ(read_whole(bench, *image).value(), content);
}

struct EncryptedBench : BlockBench {
    EncryptedBench() {
        std::string word = "a passphrase";
        secrets.add("s", {word.begin(), word.end()});
        context.secrets = &secrets;
    }
    SecretStore secrets;
};

TEST(Qcow, encrypted_images_are_exchanged_with_qemu) {
    EncryptedBench bench;
    ImageProfile profile = profile_of(1);
    profile.size_bytes = MiB;
    profile.create_options = "encrypt.format=aes,encrypt.key-secret=s";
    profile.open_options = "encrypt.key-secret=s";
    auto created = create_profile_image(bench, profile, "e");
    ASSERT_TRUE(created.ok()) << created.error().message();
    auto image = open_profile_image(bench, profile, "e").value();
    std::vector<std::uint8_t> content(MiB), found(MiB), noise = patchy_noise(5, 200001);
    ASSERT_TRUE(bench.run(write_bytes(*image, 1001, noise)).ok());
    std::ranges::copy(noise, content.begin() + 1001);
    ASSERT_TRUE(bench.run(write_bytes(*image, 30000, ConstBytes(noise).first(777))).ok());
    std::copy_n(noise.begin(), 777, content.begin() + 30000);
    EXPECT_EQ(read_whole(bench, *image).value(), content);
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    image = open_profile_image(bench, profile, "e", true).value();
    EXPECT_EQ(read_whole(bench, *image).value(), content);
    EXPECT_TRUE(bench.run(collect_info(*image)).value().details.encrypted);
    if (!have_qemu_img()) GTEST_SKIP();
    std::ofstream(bench.path("raw"), std::ios::binary)
        .write(reinterpret_cast<char const*>(content.data()), std::streamsize(content.size()));
    std::string secret = " --object secret,id=s,data='a passphrase' ";
    auto outcome = run_command("cd " + bench.path("") + " && qemu-img convert" + secret +
                               "--image-opts driver=qcow,file.filename=e,encrypt.key-secret=s -O raw e.raw && cmp raw "
                               "e.raw && qemu-img convert" +
                               secret + "-f raw -O qcow -o encrypt.format=aes,encrypt.key-secret=s raw t");
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    image = open_profile_image(bench, profile, "t", true).value();
    EXPECT_EQ(read_whole(bench, *image).value(), content);
}

TEST(Qcow, encrypted_image_asks_for_its_key) {
    EncryptedBench bench;
    ImageProfile profile = profile_of(1);
    profile.create_options = "encryption=on,encrypt.key-secret=s";
    ASSERT_TRUE(create_profile_image(bench, profile, "e").ok());
    auto opened = open_profile_image(bench, profile, "e");
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().message(), "Parameter 'encrypt.key-secret' is required for cipher");
}

TEST(Qcow, hostile_headers_are_refused_by_field) {
    struct Case {
        char const* field;
        void (*damage)(qcow::Header&);
    };
    Case const cases[] = {
        {"version", [](qcow::Header& h) { h.version = 9; }},
        {"size", [](qcow::Header& h) { h.size = std::uint64_t(1) << 62; }},
        {"cluster_bits", [](qcow::Header& h) { h.cluster_bits = 63; }},
        {"l2_bits", [](qcow::Header& h) { h.l2_bits = 31; }},
        {"crypt_method", [](qcow::Header& h) { h.crypt_method = 2; }},
        {"l1_table_offset", [](qcow::Header& h) { h.l1_offset = std::uint64_t(1) << 63; }},
        {"L1 table", [](qcow::Header& h) { h.l1_offset = 1 << 30; }},
        {"backing_file_size", [](qcow::Header& h) { h.backing_offset = 48, h.backing_size = 1 << 30; }},
    };
    for (Case const& c : cases) {
        BlockBench bench;
        ASSERT_TRUE(create_profile_image(bench, profile_of(1), "v").ok());
        std::fstream file(bench.path("v"), std::ios::in | std::ios::out | std::ios::binary);
        qcow::Header header;
        file.read(reinterpret_cast<char*>(&header), sizeof header);
        c.damage(header);
        file.seekp(0).write(reinterpret_cast<char const*>(&header), sizeof header);
        file.close();
        auto opened = open_profile_image(bench, profile_of(1), "v", true);
        ASSERT_FALSE(opened.ok()) << c.field;
        EXPECT_NE(opened.error().message().find(c.field), std::string::npos) << opened.error().message();
    }
}

} // namespace
