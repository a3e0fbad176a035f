// Host files: both engines, O_DIRECT bouncing, holes, and locks against QEMU.
#include "block/core/capabilities.h"
#include "tests/support/block_bench.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

void make_file(std::string const& path, std::size_t size) {
    std::ofstream(path).close();
    std::filesystem::resize_file(path, size);
}

bool have_qemu_io() { return std::system("command -v qemu-io >/dev/null 2>&1") == 0; }

class FileEngines : public testing::TestWithParam<std::tuple<bool, CacheMode>> {};

TEST_P(FileEngines, unaligned_writes_read_back) {
    auto [uring, cache] = GetParam();
    BlockBench bench(uring);
    make_file(bench.path("f"), 1 << 20);
    OpenOptions options;
    options.filename = bench.path("f");
    options.cache = cache;
    auto opened = bench.run(open_protocol(bench.context, options));
    if (!opened.ok() && bypasses_page_cache(cache)) GTEST_SKIP() << "no O_DIRECT here: " << opened.error().message();
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    BlockDevice& file = **opened;
    std::vector<std::uint8_t> model(1 << 20), data(1 << 20);
    std::uint64_t seed = 7;
    for (int i = 0; i < 60; ++i) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        std::size_t offset = seed >> 40 & 0x7ffff, length = 1 + (seed >> 20 & 0xffff);
        for (std::size_t j = 0; j < length; ++j) data[j] = std::uint8_t(i + j);
        if (i % 7 == 3) {
            std::fill_n(model.begin() + offset, length, 0);
            ASSERT_TRUE(bench.run(write_zeroes(file, offset, length, {})).ok());
        } else {
            std::copy_n(data.begin(), length, model.begin() + offset);
            ASSERT_TRUE(bench.run(write_bytes(file, offset, ConstBytes(data.data(), length))).ok());
        }
    }
    ASSERT_TRUE(bench.run(file.flush()).ok());
    ASSERT_TRUE(bench.run(read_bytes(file, 0, data)).ok());
    EXPECT_TRUE(data == model);
    ASSERT_TRUE(bench.run(read_bytes(file, 12345, Bytes(data.data(), 3))).ok());
    EXPECT_TRUE(std::equal(data.begin(), data.begin() + 3, model.begin() + 12345));
}
INSTANTIATE_TEST_SUITE_P(all, FileEngines,
                         testing::Combine(testing::Bool(), testing::Values(CacheMode::writeback, CacheMode::none,
                                                                           CacheMode::directsync)));

TEST(HostFile, holes_are_found_and_growth_follows_writes) {
    BlockBench bench;
    make_file(bench.path("f"), 1 << 20);
    OpenOptions options;
    options.filename = bench.path("f");
    auto file = bench.run(open_protocol(bench.context, options)).value();
    std::vector<std::uint8_t> data(65536, 0xaa);
    ASSERT_TRUE(bench.run(write_bytes(*file, 131072, data)).ok());
    AllocationMap* map = file->capabilities().allocation;
    BlockStatus hole = bench.run(map->status(0, 1 << 20)).value();
    EXPECT_TRUE(hole.zero);
    EXPECT_EQ(hole.length, 131072u);
    BlockStatus stored = bench.run(map->status(131072, 1 << 19)).value();
    EXPECT_TRUE(stored.data);
    EXPECT_EQ(stored.length, 65536u);
    ASSERT_TRUE(bench.run(write_bytes(*file, 2 << 20, data)).ok());
    EXPECT_EQ(file->size_bytes(), (2u << 20) + 65536u);
}

TEST(HostFile, missing_file_and_directory_say_so) {
    BlockBench bench;
    OpenOptions options;
    options.filename = bench.path("nofile");
    EXPECT_EQ(bench.run(open_protocol(bench.context, options)).error().message(),
              "Could not open '" + options.filename + "': No such file or directory");
    options.filename = bench.directory;
    EXPECT_NE(bench.run(open_protocol(bench.context, options)).error().message().find("Is a directory"),
              std::string::npos);
}

TEST(ImageLock, second_writer_is_refused_with_the_holder_named) {
    BlockBench bench;
    make_file(bench.path("f"), 65536);
    OpenOptions options;
    options.filename = bench.path("f");
    auto first = bench.run(open_protocol(bench.context, options));
    ASSERT_TRUE(first.ok());
    auto second = bench.run(open_protocol(bench.context, options));
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().message().find("Failed to get \"write\" lock\nIs another process using the image [" +
                                            options.filename + "]?\nIt is in use by process " +
                                            std::to_string(getpid()) + " ("),
              0u)
        << second.error().message();
    options.read_only = true;
    auto reader = bench.run(open_protocol(bench.context, options));
    EXPECT_EQ(reader.error().message().find("Failed to get shared \"write\" lock\n"), 0u);
    options.force_share = true;
    EXPECT_TRUE(bench.run(open_protocol(bench.context, options)).ok());
}

TEST(ImageLock, qemu_io_is_kept_out_while_we_write) {
    if (!have_qemu_io()) GTEST_SKIP() << "qemu-io is not installed";
    BlockBench bench;
    make_file(bench.path("f"), 65536);
    OpenOptions options;
    options.filename = bench.path("f");
    std::string command = "qemu-io -f raw -c 'write 0 512' " + options.filename + " 2>&1";
    auto output = [&] {
        std::string text;
        FILE* pipe = popen(command.c_str(), "r");
        char buffer[256];
        while (std::fgets(buffer, sizeof buffer, pipe)) text += buffer;
        pclose(pipe);
        return text;
    };
    {
        auto ours = bench.run(open_protocol(bench.context, options));
        ASSERT_TRUE(ours.ok());
        EXPECT_NE(output().find("Failed to get \"write\" lock"), std::string::npos);
    }
    EXPECT_NE(output().find("wrote 512/512"), std::string::npos);
}

TEST(ImageLock, we_are_kept_out_while_qemu_io_writes) {
    if (!have_qemu_io()) GTEST_SKIP() << "qemu-io is not installed";
    BlockBench bench;
    make_file(bench.path("f"), 65536);
    OpenOptions options;
    options.filename = bench.path("f");
    FILE* qemu = popen(("exec qemu-io -f raw " + options.filename + " >" + bench.path("out")).c_str(), "w");
    ASSERT_NE(qemu, nullptr);
    std::fputs("write 0 512\n", qemu);
    std::fflush(qemu);
    for (std::string text; text.find("wrote 512/512") == std::string::npos;) {
        std::ifstream out(bench.path("out"));
        text.assign(std::istreambuf_iterator<char>(out), {});
        if (text.empty()) bench.loop->run_once(1'000'000);
        std::fputs("read 0 1\n", qemu); // its standard output is a file: more of it, and it is flushed
        std::fflush(qemu);
    }
    auto ours = bench.run(open_protocol(bench.context, options));
    ASSERT_FALSE(ours.ok());
    EXPECT_NE(ours.error().message().find("(qemu-io)"), std::string::npos) << ours.error().message();
    std::fputs("quit\n", qemu);
    pclose(qemu);
    EXPECT_TRUE(bench.run(open_protocol(bench.context, options)).ok());
}

} // namespace
