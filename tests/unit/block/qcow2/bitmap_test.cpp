// Persistent dirty bitmaps, ours and qemu-img's.
#include "tests/unit/block/qcow2/qcow2_bench.h"

namespace vmm::block {

namespace {

// The dirty stretches of a bitmap as text: "0+65536 ".
std::string dirty(Qcow2Bench& bench, Image& image, std::string const& name) {
    std::string out;
    for (std::uint64_t at = 0; at < image.size_bytes();) {
        auto stretch = bench.run(image.capabilities().bitmaps->bitmap_status(name, at));
        if (!stretch.ok()) return stretch.error().message();
        if (stretch->dirty) out += fmt::format("{}+{} ", stretch->offset, stretch->length);
        at += stretch->length;
    }
    return out;
}

TEST(Qcow2Bitmaps, record_writes_across_reopening) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 64 << 20);
    auto image = bench.open("x.qcow2");
    BitmapInfo info;
    info.name = "b";
    info.granularity_bytes = 4096;
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->add_bitmap(info)).ok());
    bench.write(*image, 5000, std::vector<std::uint8_t>(10, 1));
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    image = bench.open("x.qcow2");
    EXPECT_EQ(dirty(bench, *image, "b"), "4096+4096 ");
    bench.write(*image, 1 << 20, std::vector<std::uint8_t>(100000, 1));
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    image = bench.open("x.qcow2");
    EXPECT_EQ(dirty(bench, *image, "b"), "4096+4096 1048576+102400 ");
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->set_bitmap_enabled("b", false)).ok());
    bench.write(*image, 30 << 20, std::vector<std::uint8_t>(100000, 1));
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->mark_dirty("b", 0, 1)).ok());
    bench.close(std::move(image));
    image = bench.open("x.qcow2");
    EXPECT_EQ(dirty(bench, *image, "b"), "0+8192 1048576+102400 ");
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->clear_bitmap("b")).ok());
    EXPECT_EQ(dirty(bench, *image, "b"), "");
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->remove_bitmap("b")).ok());
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    image = bench.open("x.qcow2");
    EXPECT_TRUE(image->capabilities().bitmaps->bitmaps().empty());
    bench.close(std::move(image));
}

TEST(Qcow2Bitmaps, of_qemu_are_kept_and_ours_are_read_by_it) {
    if (!Qcow2Bench::have_qemu_img()) GTEST_SKIP() << "qemu-img is not installed";
    Qcow2Bench bench;
    ASSERT_EQ(bench.qemu_img("create -f qcow2 x.qcow2 64M"), 0);
    ASSERT_EQ(bench.qemu_img("bitmap --add x.qcow2 q"), 0);
    ASSERT_EQ(bench.shell("qemu-io -c 'write 1M 64k' x.qcow2"), 0);
    auto image = bench.open("x.qcow2");
    EXPECT_EQ(dirty(bench, *image, "q"), "1048576+65536 ");
    bench.write(*image, 0, std::vector<std::uint8_t>(10, 1));
    BitmapInfo info;
    info.name = "ours";
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->add_bitmap(info)).ok());
    bench.write(*image, 2 << 20, std::vector<std::uint8_t>(10, 1));
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    EXPECT_EQ(bench.qemu_img("info x.qcow2"), 0);
    EXPECT_NE(bench.last_output.find("name: ours"), std::string::npos) << bench.last_output;
    EXPECT_EQ(bench.last_output.find("in-use"), std::string::npos) << bench.last_output;
    ASSERT_EQ(bench.qemu_img("bitmap --merge q x.qcow2 ours"), 0) << bench.last_output;
    image = bench.open("x.qcow2");
    EXPECT_EQ(dirty(bench, *image, "ours"), "0+65536 1048576+65536 2097152+65536 ");
    bench.close(std::move(image));
}

TEST(Qcow2Bitmaps, follow_the_disk_size) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 1 << 20);
    auto image = bench.open("x.qcow2");
    BitmapInfo info;
    info.name = "b";
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->add_bitmap(info)).ok());
    ResizeRequest request;
    request.new_size_bytes = 3 << 20;
    ASSERT_TRUE(bench.run(image->capabilities().resizable->resize(request)).ok());
    bench.write(*image, (3 << 20) - 1, std::vector<std::uint8_t>(1, 1));
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    image = bench.open("x.qcow2");
    EXPECT_EQ(dirty(bench, *image, "b"), "3080192+65536 ");
    bench.close(std::move(image));
}

TEST(Qcow2Bitmaps, are_in_use_after_a_crash) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 1 << 20);
    auto image = bench.open("x.qcow2");
    BitmapInfo info;
    info.name = "b";
    ASSERT_TRUE(bench.run(image->capabilities().bitmaps->add_bitmap(info)).ok());
    bench.close(std::move(image));
    image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(1, 1));
    image.reset(); // never closed
    image = bench.open("x.qcow2", true);
    ASSERT_EQ(image->capabilities().bitmaps->bitmaps().size(), 1u);
    EXPECT_TRUE(image->capabilities().bitmaps->bitmaps()[0].in_use);
    bench.close(std::move(image));
}

} // namespace
} // namespace vmm::block
