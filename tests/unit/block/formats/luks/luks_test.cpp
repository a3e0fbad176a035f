// Raw LUKS disks: against a flat model, and headers that lie.
#include "block/core/secret_store.h"
#include "tests/support/image_conformance.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

namespace vmm::block {

namespace {

struct LuksBench : BlockBench {
    LuksBench() {
        secrets.add("s", {'a', 'b', 'c'});
        secrets.add("wrong", {'x'});
        context.secrets = &secrets;
    }
    void create(std::string const& name, std::uint64_t size) {
        CreateRequest request;
        request.filename = path(name);
        request.size_bytes = size;
        request.options = OptionValues::parse("key-secret=s,iter-time=10").value();
        Result<void> made = run(formats.find("luks")->create(context, request));
        ASSERT_TRUE(made.ok()) << made.error().message();
    }
    Result<std::unique_ptr<Image>> open(std::string const& name, std::string const& secret, std::string format = "") {
        OpenOptions options;
        options.filename = path(name);
        options.format = std::move(format);
        if (!secret.empty()) options.tree.set("key-secret", secret);
        return run(open_image(context, options));
    }
    SecretStore secrets;
};

TEST(Luks, conforms) {
    ImageProfile profile;
    profile.format = "luks";
    profile.create_options = "key-secret=sec0,iter-time=10";
    profile.open_options = "key-secret=sec0";
    profile.new_reads_zero = false;
    profile.qemu_reads = false; // it has no secret on its command line here
    profile.grows = profile.shrinks = true;
    image_conforms(profile);
}

TEST(Luks, holds_what_is_written_at_any_alignment) {
    LuksBench bench;
    bench.create("x", 1 << 20);
    std::vector<std::uint8_t> model(1 << 20, 0x11);
    auto image = bench.open("x", "s"); // probed
    ASSERT_TRUE(image.ok()) << image.error().message();
    ASSERT_EQ((*image)->size_bytes(), model.size());
    ASSERT_TRUE(bench.run(write_bytes(**image, 0, ConstBytes(model))).ok());
    std::mt19937_64 random(3);
    for (int i = 0; i < 300; ++i) {
        std::uint64_t at = random() % model.size(), length = 1 + random() % (i % 10 ? 3000 : 400000);
        length = std::min<std::uint64_t>(length, model.size() - at);
        std::vector<std::uint8_t> data(length, std::uint8_t(random()));
        ASSERT_TRUE(bench.run(write_bytes(**image, at, ConstBytes(data))).ok());
        std::ranges::copy(data, model.begin() + std::ptrdiff_t(at));
        at = random() % model.size();
        std::vector<std::uint8_t> found(std::min<std::uint64_t>(1 + random() % 5000, model.size() - at));
        ASSERT_TRUE(bench.run(read_bytes(**image, at, Bytes(found))).ok());
        ASSERT_TRUE(std::ranges::equal(found, std::span(model).subspan(at, found.size()))) << "at " << at;
    }
    ASSERT_TRUE(bench.run(close_image(std::move(image).value())).ok());
    image = bench.open("x", "s", "luks");
    EXPECT_TRUE(read_whole(bench, **image).value() == model);
    ASSERT_TRUE(bench.run(close_image(std::move(image).value())).ok());
}

TEST(Luks, the_file_holds_no_plain_text) {
    LuksBench bench;
    bench.create("x", 1 << 20);
    auto image = bench.open("x", "s");
    std::string const text = "a secret that must not be seen";
    std::vector<std::uint8_t> data(text.begin(), text.end());
    ASSERT_TRUE(bench.run(write_bytes(**image, 5000, ConstBytes(data))).ok());
    ASSERT_TRUE(bench.run(close_image(std::move(image).value())).ok());
    std::ifstream file(bench.path("x"), std::ios::binary);
    std::string whole((std::istreambuf_iterator<char>(file)), {});
    EXPECT_EQ(whole.find(text), std::string::npos);
}

TEST(Luks, opens_only_with_the_right_secret) {
    LuksBench bench;
    bench.create("x", 1 << 20);
    EXPECT_EQ(bench.open("x", "").error().message(), "Parameter 'key-secret' is required for cipher");
    EXPECT_EQ(bench.open("x", "nope").error().message(), "No secret with id 'nope'");
    EXPECT_EQ(bench.open("x", "wrong").error().message(), "Invalid password, cannot unlock any keyslot");
}

TEST(Luks, damaged_headers_end_in_an_error) {
    LuksBench bench;
    bench.create("good", 65536);
    std::ifstream in(bench.path("good"), std::ios::binary);
    std::vector<char> const good((std::istreambuf_iterator<char>(in)), {});
    std::mt19937_64 random(9);
    for (int i = 0; i < 300; ++i) {
        std::vector<char> bad = good;
        // not the iteration counts: the file may make us work for some seconds, by design
        std::size_t at = random() % 164;
        for (unsigned n = 1 + random() % 4; n; --n) bad[at + n - 1] = char(random());
        if (i % 8 == 0) bad.resize(random() % bad.size());
        std::ofstream(bench.path("bad"), std::ios::binary).write(bad.data(), std::streamsize(bad.size()));
        auto image = bench.open("bad", "s", "luks");
        if (image.ok()) (void)bench.run(close_image(std::move(image).value()));
    }
}

} // namespace
} // namespace vmm::block
