// raw, null-co and blkdebug through open_image.
#include "block/core/capabilities.h"
#include "block/core/debug_events.h"
#include "tests/support/block_bench.h"

#include <gtest/gtest.h>

#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

void make_file(std::string const& path, std::size_t size) {
    std::ofstream(path).close();
    std::filesystem::resize_file(path, size);
}

// A format that only probes: anything that begins with "QFI".
Format probing_format() {
    Format format;
    format.name = "other";
    format.probe = [](ConstBytes header, std::string_view) {
        return header.size() >= 3 && header[0] == 'Q' && header[1] == 'F' && header[2] == 'I' ? 100 : 0;
    };
    return format;
}

TEST(RawImage, probed_raw_refuses_a_foreign_header_but_not_other_writes) {
    BlockBench bench;
    bench.formats.add(probing_format());
    make_file(bench.path("f"), 65536);
    OpenOptions options;
    options.filename = bench.path("f");
    options.quiet_probe = true;
    std::vector<std::uint8_t> header = {'Q', 'F', 'I', 0}, harmless = {1, 2, 3};
    {
        auto image = bench.run(open_image(bench.context, options)).value();
        EXPECT_TRUE(image->probed_raw());
        EXPECT_EQ(bench.run(write_bytes(*image, 0, header)).error().errno_value(), EPERM);
        EXPECT_TRUE(bench.run(write_bytes(*image, 0, harmless)).ok());
        EXPECT_TRUE(bench.run(write_bytes(*image, 4096, header)).ok());
        EXPECT_TRUE(bench.run(close_image(std::move(image))).ok());
    }
    options.format = "raw";
    auto image = bench.run(open_image(bench.context, options)).value();
    EXPECT_TRUE(bench.run(write_bytes(*image, 0, header)).ok());
}

TEST(RawImage, requests_past_the_end_fail_and_resize_grows) {
    BlockBench bench;
    make_file(bench.path("f"), 1000);
    OpenOptions options;
    options.filename = bench.path("f");
    options.format = "raw";
    auto image = bench.run(open_image(bench.context, options)).value();
    std::vector<std::uint8_t> data(512, 1), tail(24, 1);
    EXPECT_EQ(image->size_bytes(), 1024u); // whole sectors: the rest of the last one reads as zeroes
    ASSERT_TRUE(bench.run(read_bytes(*image, 1000, tail)).ok());
    EXPECT_EQ(tail, std::vector<std::uint8_t>(24));
    auto status = bench.run(image->capabilities().allocation->status(1000, 24));
    EXPECT_TRUE(status.ok() && status->zero && status->length == 24);
    EXPECT_EQ(bench.run(write_bytes(*image, 600, data)).error().errno_value(), EIO);
    ResizeRequest request{.new_size_bytes = 4096};
    ASSERT_TRUE(bench.run(image->capabilities().resizable->resize(request)).ok());
    EXPECT_TRUE(bench.run(write_bytes(*image, 600, data)).ok());
}

TEST(open_image, errors_name_what_is_wrong) {
    BlockBench bench;
    OpenOptions options;
    options.filename = bench.path("f");
    options.format = "foo";
    EXPECT_EQ(bench.run(open_image(bench.context, options)).error().message(), "Unknown driver 'foo'");
    options.format = "";
    options.filename = "nbdx:foo";
    EXPECT_EQ(bench.run(open_image(bench.context, options)).error().message(), "Unknown protocol 'nbdx'");
}

TEST(open_image, json_and_null_co) {
    BlockBench bench;
    OpenOptions options;
    options.filename = R"(json:{"driver":"raw","file":{"driver":"null-co","size":"2M","read-zeroes":true}})";
    auto opened = bench.run(open_image(bench.context, options));
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    EXPECT_EQ((*opened)->size_bytes(), 2u << 20);
    std::vector<std::uint8_t> data(16, 1);
    ASSERT_TRUE(bench.run(read_bytes(**opened, 100, data)).ok());
    EXPECT_TRUE(is_zero(ConstBytes(data)));
}

TEST(resolve_backing_filename, is_relative_to_the_overlay) {
    EXPECT_EQ(resolve_backing_filename("/d/o.qcow2", "base.img"), "/d/base.img");
    EXPECT_EQ(resolve_backing_filename("o.qcow2", "base.img"), "base.img");
    EXPECT_EQ(resolve_backing_filename("/d/o.qcow2", "/x/base.img"), "/x/base.img");
    EXPECT_EQ(resolve_backing_filename("/d/o.qcow2", "nbd://h/e"), "nbd://h/e");
}

TEST(Blkdebug, once_rule_fails_one_request_and_breakpoints_stop_one) {
    BlockBench bench;
    make_file(bench.path("f"), 65536);
    std::ofstream(bench.path("cfg"))
        << "# rules\n[inject-error]\nevent = \"read_aio\"\nerrno = \"28\"\nonce = \"on\"\n";
    OpenOptions options;
    options.filename = "blkdebug:" + bench.path("cfg") + ":" + bench.path("f");
    options.format = "raw";
    auto opened = bench.run(open_image(bench.context, options));
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    BlockDevice& image = **opened;
    std::vector<std::uint8_t> data(512);
    EXPECT_EQ(bench.run(read_bytes(image, 0, data)).error().errno_value(), ENOSPC);
    EXPECT_TRUE(bench.run(read_bytes(image, 0, data)).ok());

    DebugEvents* debug = image.capabilities().debug;
    ASSERT_NE(debug, nullptr);
    ASSERT_TRUE(debug->set_breakpoint(BlkdebugEvent::write_aio, "A").ok());
    bool done = false;
    spawn(write_bytes(image, 0, data), std::function<void(Result<void>)>([&](Result<void> r) { done = r.ok(); }));
    EXPECT_TRUE(debug->is_suspended("A"));
    EXPECT_FALSE(done);
    ASSERT_TRUE(debug->resume("A").ok());
    while (!done) bench.loop->run_once(-1);
    EXPECT_FALSE(debug->is_suspended("A"));
}

} // namespace
