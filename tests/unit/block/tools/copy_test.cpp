// CopyJob against a plain copy: holes, concatenation, windows, a failing source.
#include "block/tools/common/image_opening.h"
#include "block/tools/img/copy.h"
#include "tests/support/block_bench.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

using namespace vmm;
using namespace vmm::block;

namespace {

struct Fixture {
    std::unique_ptr<Tool> tool = Tool::create("dir/copy-test").value();
    BlockBench files; // only its directory

    std::vector<std::uint8_t> random_sparse(std::size_t size, unsigned seed) {
        std::mt19937 random(seed);
        std::vector<std::uint8_t> bytes(size);
        for (std::size_t at = 0; at < size; at += 4096)
            if (random() % 3 == 0)
                for (std::size_t i = at; i < std::min(size, at + 4096); ++i) bytes[i] = std::uint8_t(random());
        return bytes;
    }
    std::string write(std::string const& name, std::vector<std::uint8_t> const& bytes) {
        std::ofstream(files.path(name), std::ios::binary)
            .write(reinterpret_cast<char const*>(bytes.data()), std::streamsize(bytes.size()));
        return files.path(name);
    }
    std::unique_ptr<Image> open(std::string const& path, bool writable) {
        ImageRequest request{.name = path, .format = "raw"};
        request.writable = writable;
        return tool->run(open_for_tool(*tool, request)).value();
    }
    // Copies the sources into a fresh (or prefilled) file and gives its content.
    std::vector<std::uint8_t> copy(std::vector<std::string> const& sources, CopyOptions options,
                                   std::uint8_t prefill = 0) {
        std::string target = write("target", std::vector<std::uint8_t>(options.length, prefill));
        std::vector<std::unique_ptr<Image>> images;
        std::vector<Image*> from;
        for (auto const& source : sources) images.push_back(open(source, false));
        for (auto const& image : images) from.push_back(image.get());
        auto to = open(target, true);
        Progress progress({.quiet = true});
        Interrupts interrupts(tool->loop(), [] {});
        CopyJob job(*tool, from, *to, options, progress, interrupts);
        Result<void> result = tool->run(job.run());
        EXPECT_TRUE(result.ok()) << result.error().message();
        images.push_back(std::move(to));
        for (auto& image : images) EXPECT_TRUE(tool->run(close_image(std::move(image))).ok());
        std::ifstream in(target, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
};

TEST(CopyJob, random_content_arrives_in_any_mode) {
    Fixture f;
    auto bytes = f.random_sparse(9'000'000, 1);
    std::string source = f.write("a", bytes);
    for (std::size_t in_flight : {1, 8})
        for (bool out_of_order : {false, true})
            for (std::uint64_t sparse : {0, 4096, 65536}) {
                CopyOptions options;
                options.in_flight = in_flight;
                options.out_of_order = out_of_order;
                options.sparse_bytes = sparse;
                options.target_is_zero = true;
                options.length = bytes.size();
                EXPECT_EQ(f.copy({source}, options), bytes) << in_flight << out_of_order << sparse;
            }
}

TEST(CopyJob, zeroes_are_written_where_the_target_is_not_zero) {
    Fixture f;
    auto bytes = f.random_sparse(3'000'000, 2);
    CopyOptions options;
    options.length = bytes.size();
    EXPECT_EQ(f.copy({f.write("a", bytes)}, options, 0xee), bytes);
}

TEST(CopyJob, sources_are_joined_and_a_window_is_taken) {
    Fixture f;
    auto a = f.random_sparse(700'416, 3), b = f.random_sparse(1'300'480, 4);
    std::vector<std::uint8_t> both = a;
    both.insert(both.end(), b.begin(), b.end());
    CopyOptions options;
    options.target_is_zero = true;
    options.source_offset = 5000;
    options.length = 1'500'000;
    EXPECT_EQ(f.copy({f.write("a", a), f.write("b", b)}, options),
              std::vector<std::uint8_t>(both.begin() + 5000, both.begin() + 1'505'000));
}

} // namespace
