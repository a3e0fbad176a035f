// Encrypted images: AES and LUKS, ours read by qemu-io and its by us.
#include "block/core/secret_store.h"
#include "tests/unit/block/qcow2/qcow2_bench.h"

namespace vmm::block {

namespace {

struct CryptoBench : Qcow2Bench {
    CryptoBench() {
        secrets.add("s", {'a', 'b', 'c'});
        secrets.add("wrong", {'x'});
        context.secrets = &secrets;
    }
    OpenOptions with_secret(std::string const& name, std::string const& id = "s") {
        OpenOptions options = options_for(name);
        options.tree.set("encrypt.key-secret", id);
        return options;
    }
    int qemu_io(std::string const& format, std::string const& name, std::string const& command) {
        return shell("qemu-io --object secret,id=s,data=abc --image-opts driver=qcow2,encrypt.format=" + format +
                     ",encrypt.key-secret=s,file.filename=" + name + " -c '" + command + "'");
    }
    SecretStore secrets;
};

class EncryptedQcow2 : public testing::TestWithParam<char const*> {};

TEST_P(EncryptedQcow2, holds_what_is_written_and_qemu_reads_it) {
    CryptoBench bench;
    std::string const options = GetParam();
    std::string const format = options.find("luks") != std::string::npos ? "luks" : "aes";
    bench.create("x.qcow2", 1 << 20, options + ",encrypt.key-secret=s");
    ModelRun model(bench, 5, std::vector<std::uint8_t>(1 << 20));
    auto image = bench.open(bench.with_secret("x.qcow2"));
    ASSERT_TRUE(image);
    for (int i = 0; i < 200; ++i) model.step(*image, 60000);
    model.compare_all(*image);
    model.zero(*image, 0, 1 << 20, true);
    bench.write(*image, 70144, std::vector<std::uint8_t>(99840, 0x77));
    Result<CheckReport> report =
        bench.run(image->capabilities().checkable->check(RepairMode::none, [](std::string_view) {}));
    ASSERT_TRUE(report.ok());
    EXPECT_EQ(report->corruptions + report->leaks, 0u);
    bench.close(std::move(image));
    if (!Qcow2Bench::have_qemu_img()) return;
    EXPECT_EQ(bench.qemu_io(format, "x.qcow2", "read -P 0x77 70144 99840"), 0) << bench.last_output;
    EXPECT_EQ(bench.last_output.find("failed"), std::string::npos) << bench.last_output;
    EXPECT_EQ(bench.qemu_io(format, "x.qcow2", "write -P 0x33 300032 99840"), 0) << bench.last_output;
    image = bench.open(bench.with_secret("x.qcow2"));
    EXPECT_TRUE(bench.read(*image, 300032, 99840) == std::vector<std::uint8_t>(99840, 0x33));
    EXPECT_EQ(bench.read(*image, 100000, 1)[0], 0x77);
    bench.close(std::move(image));
}

INSTANTIATE_TEST_SUITE_P(
    formats, EncryptedQcow2,
    testing::Values("encrypt.format=luks,encrypt.iter-time=10", "encrypt.format=aes",
                    "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,"
                    "encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1",
                    "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-256,encrypt.cipher-mode=cbc,"
                    "encrypt.ivgen-alg=plain,cluster_size=4096"));

TEST(Qcow2Encryption, images_of_qemu_open_and_wrong_passphrases_do_not) {
    if (!Qcow2Bench::have_qemu_img()) GTEST_SKIP() << "qemu-img is not installed";
    CryptoBench bench;
    ASSERT_EQ(
        bench.qemu_img("create -f qcow2 --object secret,id=s,data=abc -o encrypt.format=luks,encrypt.key-secret=s,"
                       "encrypt.iter-time=10 x.qcow2 4M"),
        0)
        << bench.last_output;
    ASSERT_EQ(bench.qemu_io("luks", "x.qcow2", "write -P 0x42 65024 99840"), 0);
    auto image = bench.open(bench.with_secret("x.qcow2"));
    ASSERT_TRUE(image);
    EXPECT_TRUE(bench.read(*image, 65024, 99840) == std::vector<std::uint8_t>(99840, 0x42));
    bench.close(std::move(image));
    auto refused = bench.run(open_image(bench.context, bench.with_secret("x.qcow2", "wrong")));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().message(), "Invalid password, cannot unlock any keyslot");
    refused = bench.run(open_image(bench.context, bench.options_for("x.qcow2")));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().message(), "Parameter 'encrypt.key-secret' is required for cipher");
}

} // namespace
} // namespace vmm::block
