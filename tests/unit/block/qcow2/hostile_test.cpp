// Images made by hand to hurt: each gives an error that names the field, or is refused for writing.
#include "tests/unit/block/qcow2/qcow2_bench.h"

#include <fstream>

namespace vmm::block {

namespace {

struct Patch {
    char const* name;
    std::uint64_t offset;
    std::vector<std::uint8_t> bytes; // big-endian, as in the file
    char const* error;               // a part of the message
};

std::vector<std::uint8_t> be(std::uint64_t value, int bytes) {
    std::vector<std::uint8_t> out;
    for (int i = bytes - 1; i >= 0; --i) out.push_back(std::uint8_t(value >> (8 * i)));
    return out;
}

void patch(std::string const& path, std::uint64_t offset, std::vector<std::uint8_t> const& bytes) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(std::streamoff(offset));
    file.write(reinterpret_cast<char const*>(bytes.data()), std::streamsize(bytes.size()));
}

TEST(Qcow2Hostile, header_fields_that_lie_are_named) {
    std::vector<Patch> const patches = {
        {"version", 4, be(9, 4), "Unsupported qcow2 version 9"},
        {"cluster bits small", 20, be(8, 4), "Unsupported cluster size: 2^8"},
        {"cluster bits large", 20, be(63, 4), "Unsupported cluster size: 2^63"},
        {"backing offset", 8, be(1ull << 40, 8), "Invalid backing file offset"},
        {"backing length", 8,
         [] {
             auto v = be(4096, 8);
             auto n = be(60000, 4);
             v.insert(v.end(), n.begin(), n.end());
             return v;
         }(),
         "Backing file name too long"},
        {"size", 24, be(~0ull, 8), "is too large (size)"},
        {"size beyond L1", 24, be(1ull << 50, 8), "L1 table is too small (l1_size)"},
        {"crypt method", 32, be(7, 4), "Unsupported encryption method 7"},
        {"crypt without header", 32, be(2, 4), "CRYPTO header extension is missing"},
        {"L1 entries", 36, be(0xffffffff, 4), "Active L1 table too large"},
        {"L1 offset", 40, be(12345, 8), "Active L1 table offset invalid"},
        {"L1 offset far", 40, be(~0xffffull, 8), "Active L1 table offset invalid"},
        {"refcount table offset", 48, be(777, 8), "Reference count table offset invalid"},
        {"refcount table far", 48, be(1ull << 50, 8), "Reference count table offset invalid"},
        {"refcount table size", 56, be(0xffffffff, 4), "Reference count table too large"},
        {"refcount table empty", 56, be(0, 4), "does not contain a reference count table"},
        {"snapshots", 60, be(0xffffffff, 4), "Snapshot table too large (nb_snapshots"},
        {"snapshot offset", 64, be(3, 8), "Snapshot table offset invalid"},
        {"incompatible", 72, be(1ull << 40, 8), "Unsupported qcow2 feature(s)"},
        {"data file raw", 88, be(2, 8), "autoclear_features"},
        {"refcount order", 96, be(7, 4), "may not exceed 64 bits"},
        {"header length", 100, be(20, 4), "header too short"},
        {"header length long", 100, be(1 << 30, 4), "header exceeds cluster size"},
        {"extension length", 116, be(0xfffffff0, 4), "Header extension too large"},
        {"compression", 104, be(5, 1), "Compression type incompatible feature bit"},
    };
    Qcow2Bench bench;
    for (Patch const& p : patches) {
        bench.create("x.qcow2", 10 << 20);
        patch(bench.path("x.qcow2"), p.offset, p.bytes);
        auto image = bench.run(open_image(bench.context, bench.options_for("x.qcow2")));
        ASSERT_FALSE(image.ok()) << p.name;
        EXPECT_NE(image.error().message().find(p.error), std::string::npos)
            << p.name << ": " << image.error().message();
    }
}

// After what the patch does, writing must fail and mark the image; reading elsewhere goes on.
void expect_marked_corrupt(Qcow2Bench& bench, std::uint64_t offset, std::vector<std::uint8_t> const& bytes) {
    bench.create("x.qcow2", 10 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(200000, 5));
    bench.close(std::move(image));
    patch(bench.path("x.qcow2"), offset, bytes);
    std::vector<std::uint8_t> data(65536, 9);
    image = bench.open("x.qcow2");
    ASSERT_TRUE(image);
    Result<void> written = bench.run(write_bytes(*image, 0, ConstBytes(data)));
    if (written.ok()) written = bench.run(write_bytes(*image, 1 << 20, ConstBytes(data)));
    if (written.ok()) written = bench.run(image->flush());
    EXPECT_FALSE(written.ok());
    Result<void> again = bench.run(write_bytes(*image, 5 << 20, ConstBytes(data)));
    EXPECT_FALSE(again.ok());
    (void)bench.run(close_image(std::move(image)));
    auto refused = bench.run(open_image(bench.context, bench.options_for("x.qcow2")));
    ASSERT_FALSE(refused.ok());
    EXPECT_NE(refused.error().message().find("Image is corrupt"), std::string::npos) << refused.error().message();
    EXPECT_TRUE(bench.open("x.qcow2", true));
}

constexpr std::uint64_t cluster = 65536; // header, refcount table, refcount block, L1, (L2, data, ...)

TEST(Qcow2Hostile, an_l2_entry_that_names_the_header_is_not_written_to) {
    Qcow2Bench bench;
    for (std::uint64_t victim : {1, 2, 3, 4}) // refcount table, refcount block, L1, L2
        expect_marked_corrupt(bench, 4 * cluster, be((1ull << 63) | victim * cluster, 8));
}
TEST(Qcow2Hostile, an_unaligned_l2_entry_marks_the_image) {
    Qcow2Bench bench;
    expect_marked_corrupt(bench, 4 * cluster, be((1ull << 63) | (8 * cluster + 512), 8));
}
TEST(Qcow2Hostile, an_l1_entry_that_names_the_refcount_block_marks_the_image) {
    Qcow2Bench bench;
    expect_marked_corrupt(bench, 3 * cluster, be((1ull << 63) | 2 * cluster, 8));
}
TEST(Qcow2Hostile, an_unaligned_l1_entry_marks_the_image) {
    Qcow2Bench bench;
    expect_marked_corrupt(bench, 3 * cluster, be((1ull << 63) | (2 * cluster + 1024), 8));
}
TEST(Qcow2Hostile, an_l1_entry_copied_from_nowhere_is_no_table) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 10 << 20);
    patch(bench.path("x.qcow2"), 3 * cluster, be(1ull << 63, 8));
    auto image = bench.open("x.qcow2");
    ASSERT_TRUE(image);
    bench.write(*image, 0, std::vector<std::uint8_t>(1000, 5));
    EXPECT_EQ(bench.read(*image, 0, 1000), std::vector<std::uint8_t>(1000, 5));
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
}
TEST(Qcow2Hostile, refcounts_that_call_the_tables_free_mark_the_image) {
    Qcow2Bench bench;
    expect_marked_corrupt(bench, 2 * cluster, std::vector<std::uint8_t>(64, 0));
}

TEST(Qcow2Hostile, a_compressed_cluster_past_the_end_is_an_error) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 10 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(1000, 5));
    bench.close(std::move(image));
    patch(bench.path("x.qcow2"), 4 * cluster, be((1ull << 62) | (1ull << 40), 8));
    image = bench.open("x.qcow2", true);
    std::vector<std::uint8_t> data(100);
    Result<void> got = bench.run(read_bytes(*image, 0, Bytes(data)));
    ASSERT_FALSE(got.ok());
    EXPECT_NE(got.error().message().find("beyond the end of the file"), std::string::npos);
    bench.close(std::move(image));
}

TEST(Qcow2Hostile, truncated_files_never_crash) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 10 << 20);
    for (int size : {0, 1, 23, 24, 71, 72, 103, 104, 111, 112, 300, 65536, 65537, 131072, 131080, 196608, 196700}) {
        bench.create("x.qcow2", 10 << 20);
        ASSERT_EQ(truncate(bench.path("x.qcow2").c_str(), size), 0);
        auto image = bench.run(open_image(bench.context, bench.options_for("x.qcow2")));
        if (!image.ok()) continue;
        std::vector<std::uint8_t> data(70000, 1);
        (void)bench.run(write_bytes(**image, 0, ConstBytes(data)));
        (void)bench.run(close_image(std::move(image).value()));
    }
}

} // namespace
} // namespace vmm::block
