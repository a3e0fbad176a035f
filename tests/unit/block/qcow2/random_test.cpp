// Random requests on every shape of qcow2 image, against a flat model and Debian's qemu-img.
#include "tests/unit/block/qcow2/qcow2_bench.h"

#include <fstream>

namespace vmm::block {

namespace {

struct Shape {
    char const* options;
    std::uint64_t size;
    std::uint64_t backing_size = 0; // 0: none
};
void PrintTo(Shape const& s, std::ostream* out) { *out << s.options << " " << s.size << " backing " << s.backing_size; }

class RandomQcow2 : public testing::TestWithParam<Shape> {};

std::vector<std::uint8_t> make_raw(Qcow2Bench& bench, std::string const& name, std::uint64_t size, std::uint64_t seed) {
    std::vector<std::uint8_t> data(size);
    std::mt19937_64 random(seed);
    for (std::size_t i = 0; i < size; i += 512)
        std::fill_n(data.begin() + std::ptrdiff_t(i), std::min<std::size_t>(512, size - i), std::uint8_t(random()));
    std::ofstream(bench.path(name), std::ios::binary)
        .write(reinterpret_cast<char*>(data.data()), std::streamsize(size));
    return data;
}

void expect_same_as_model(Qcow2Bench& bench, std::string const& name, std::vector<std::uint8_t> const& model) {
    if (!Qcow2Bench::have_qemu_img()) return;
    std::ofstream(bench.path("model.raw"), std::ios::binary)
        .write(reinterpret_cast<char const*>(model.data()), std::streamsize(model.size()));
    EXPECT_EQ(bench.qemu_img("compare -f qcow2 -F raw " + name + " model.raw"), 0) << bench.last_output;
}

TEST_P(RandomQcow2, reads_back_what_the_model_holds_and_qemu_agrees) {
    Shape const& shape = GetParam();
    Qcow2Bench bench;
    std::vector<std::uint8_t> content(shape.size);
    std::string options = shape.options;
    if (shape.backing_size) {
        std::vector<std::uint8_t> below = make_raw(bench, "base.raw", shape.backing_size, 7);
        std::copy_n(below.begin(), std::min(shape.size, shape.backing_size), content.begin());
        options += ",backing_file=" + bench.path("base.raw") + ",backing_fmt=raw";
    }
    bench.create("x.qcow2", shape.size, options);
    ModelRun model(bench, 1, std::move(content));
    for (int round = 0; round < 3; ++round) {
        auto image = bench.open("x.qcow2");
        ASSERT_TRUE(image);
        model.compare_all(*image);
        for (int i = 0; i < (shape.size > (8u << 20) ? 60 : 400) && !testing::Test::HasFailure(); ++i)
            model.step(*image, shape.size / 8);
        model.compare_all(*image);
        bench.close(std::move(image));
        bench.expect_clean("x.qcow2");
        expect_same_as_model(bench, "x.qcow2", model.model());
        if (testing::Test::HasFailure()) return;
    }
}

INSTANTIATE_TEST_SUITE_P(
    shapes, RandomQcow2,
    testing::Values(
        Shape{"", 8 << 20}, Shape{"compat=0.10", 4 << 20}, Shape{"cluster_size=512", 512 << 10},
        Shape{"cluster_size=512,refcount_bits=64", 512 << 10}, Shape{"cluster_size=1024,refcount_bits=1", 1 << 20},
        Shape{"cluster_size=4096,refcount_bits=2", 2 << 20}, Shape{"cluster_size=4096,refcount_bits=4", 2 << 20},
        Shape{"cluster_size=4096,refcount_bits=8", 2 << 20}, Shape{"cluster_size=32k,refcount_bits=32", 2 << 20},
        Shape{"cluster_size=2M", 16 << 20}, Shape{"extended_l2=on", 4 << 20},
        Shape{"extended_l2=on,cluster_size=16k", 1 << 20}, Shape{"compression_type=zstd", 4 << 20},
        Shape{"lazy_refcounts=on", 4 << 20}, Shape{"", 1000 * 512}, Shape{"", 4 << 20, 4 << 20},
        Shape{"", 4 << 20, 3000000}, Shape{"compat=0.10", 4 << 20, 3000320}, Shape{"", 3 << 20, 4 << 20},
        Shape{"cluster_size=512", 300 << 10, 200 << 10}, Shape{"extended_l2=on", 4 << 20, 3000320},
        Shape{"extended_l2=on,cluster_size=16k", 1 << 20, 2 << 20}, Shape{"cluster_size=2M", 9 << 20, 8 << 20}));

} // namespace
} // namespace vmm::block
