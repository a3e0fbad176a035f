// Images made by hand to hurt: each gives an error that names the field, or is refused for writing.
#include "tests/unit/block/qcow2/qcow2_bench.h"
#include "vmm/base/endian.h"

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
// Whether a write through an L2 entry that names `victim` is refused at that level of overlap-check.
bool write_is_refused(Qcow2Bench& bench, std::uint64_t victim, std::string const& level) {
    bench.create("x.qcow2", 10 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(100, 5));
    SnapshotRequest snapshot;
    snapshot.name = "s";
    EXPECT_TRUE(bench.run(image->capabilities().snapshots->create(snapshot)).ok());
    bench.write(*image, 0, std::vector<std::uint8_t>(100, 6)); // the active table is another one now
    bench.close(std::move(image));
    std::ifstream file(bench.path("x.qcow2"), std::ios::binary);
    be64 entry;
    file.seekg(3 * cluster).read(reinterpret_cast<char*>(&entry), sizeof entry);
    patch(bench.path("x.qcow2"), entry & 0x00fffffffffffe00, be((1ull << 63) | victim * cluster, 8));
    OpenOptions options = bench.options_for("x.qcow2");
    options.tree.set("overlap-check", level);
    auto opened = bench.run(open_image(bench.context, options));
    EXPECT_TRUE(opened.ok());
    std::vector<std::uint8_t> data(cluster, 9);
    bool const refused = !bench.run(write_bytes(**opened, 0, ConstBytes(data))).ok();
    (void)bench.run(close_image(std::move(opened).value()));
    return refused;
}
TEST(Qcow2Hostile, overlap_check_says_what_writes_are_compared_with) {
    Qcow2Bench bench;
    constexpr std::uint64_t refcount_table = 1, refcount_block = 2, snapshots_l2 = 4;
    EXPECT_FALSE(write_is_refused(bench, refcount_block, "none"));
    EXPECT_FALSE(write_is_refused(bench, refcount_block, "constant"));
    EXPECT_TRUE(write_is_refused(bench, refcount_table, "constant"));
    EXPECT_TRUE(write_is_refused(bench, refcount_block, "cached"));
    EXPECT_FALSE(write_is_refused(bench, snapshots_l2, "cached"));
    EXPECT_TRUE(write_is_refused(bench, snapshots_l2, "all"));
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

// --- what a check says of such images

struct Told {
    CheckReport report;
    std::string lines;
};
Told check(Qcow2Bench& bench, RepairMode repair = RepairMode::none) {
    OpenOptions options = bench.options_for("x.qcow2", repair == RepairMode::none);
    options.for_check = true;
    auto image = bench.run(open_image(bench.context, options));
    Told told;
    EXPECT_TRUE(image.ok());
    if (!image.ok()) return told;
    auto note = [&](std::string_view line) { told.lines += std::string(line) + "\n"; };
    auto report = bench.run((*image)->capabilities().checkable->check(repair, note));
    EXPECT_TRUE(report.ok());
    if (report.ok()) told.report = *report;
    bench.close(std::move(image).value());
    return told;
}
void create_with_three_clusters(Qcow2Bench& bench) {
    bench.create("x.qcow2", 10 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(3 * cluster, 5));
    bench.close(std::move(image));
}
constexpr char const* past_end =
    "ERROR: counting reference for region exceeding the end of the file by one cluster or more: ";

TEST(Qcow2Hostile, a_check_reports_overlaps_and_references_past_the_end) {
    std::vector<Patch> const patches = {
        {"L1 on refcount table", 40, be(cluster, 8), "ERROR cluster 1 refcount=1 reference=2"},
        {"L1 on refcount block", 40, be(2 * cluster, 8), "ERROR refcount block 0 refcount=2"},
        {"L2 on L1", 3 * cluster, be((1ull << 63) | 3 * cluster, 8), "ERROR cluster 3 refcount=1 reference=3"},
        {"data on L1", 4 * cluster, be((1ull << 63) | 3 * cluster, 8), "ERROR cluster 3 refcount=1 reference=2"},
        {"compressed past the end", 4 * cluster, be((1ull << 62) | (1ull << 30), 8),
         "end of the file by one cluster or more: offset 0x40000000 size 0x200"},
        {"data past the end", 4 * cluster, be((1ull << 63) | (1ull << 30), 8),
         "end of the file by one cluster or more: offset 0x40000000 size 0x10000"},
        {"reserved bits", 4 * cluster, be((1ull << 63) | 5 * cluster | 4, 8),
         "ERROR found l2 entry with reserved bits set: 8000000000050004"},
    };
    for (Patch const& p : patches) {
        Qcow2Bench bench;
        create_with_three_clusters(bench);
        patch(bench.path("x.qcow2"), p.offset, p.bytes);
        Told told = check(bench);
        EXPECT_GT(told.report.corruptions, 0u) << p.name;
        EXPECT_NE(told.lines.find(p.error), std::string::npos) << p.name << ": " << told.lines;
    }
}

TEST(Qcow2Hostile, a_check_of_a_cut_off_image_names_what_is_missing_and_no_leaks) {
    struct Cut {
        std::uint64_t size;
        char const* missing;
    };
    for (Cut cut : {Cut{6 * cluster, "offset 0x60000 size 0x10000"}, Cut{4 * cluster, "offset 0x40000 size 0x10000"},
                    Cut{3 * cluster, "offset 0x30000 size 0x8"}}) {
        Qcow2Bench bench;
        create_with_three_clusters(bench);
        ASSERT_EQ(truncate(bench.path("x.qcow2").c_str(), off_t(cut.size)), 0);
        Told told = check(bench);
        EXPECT_GT(told.report.corruptions, 0u) << cut.size;
        EXPECT_EQ(told.report.leaks, 0u) << cut.size;
        EXPECT_NE(told.lines.find(past_end + std::string(cut.missing)), std::string::npos) << told.lines;
    }
}

TEST(Qcow2Hostile, a_repair_starts_over_when_the_counts_call_used_clusters_free) {
    Qcow2Bench bench;
    create_with_three_clusters(bench);
    patch(bench.path("x.qcow2"), cluster, be(0, 8)); // no refcount block at all
    Told told = check(bench, RepairMode::all);
    EXPECT_NE(told.lines.find("Rebuilding refcount structure"), std::string::npos) << told.lines;
    EXPECT_EQ(told.report.corruptions, 0u);
    EXPECT_GT(told.report.corruptions_fixed, 0u);
    bench.expect_clean("x.qcow2");
}

TEST(Qcow2Hostile, a_rebuilt_refcount_structure_keeps_off_tables_behind_the_end) {
    Qcow2Bench bench;
    create_with_three_clusters(bench);
    ASSERT_EQ(truncate(bench.path("x.qcow2").c_str(), 2 * cluster), 0); // refcount block, L1 and all else are lost
    check(bench, RepairMode::all);
    check(bench, RepairMode::all); // now the file reaches the lost L1 table, which reads as empty
    bench.expect_clean("x.qcow2");
}

// --- blkdebug's points in qcow2, seen from outside

TEST(Qcow2Blkdebug, an_error_armed_by_an_event_fails_the_request_behind_it) {
    auto first_failure = [](std::string const& event) -> std::string {
        Qcow2Bench bench;
        create_with_three_clusters(bench);
        std::ofstream(bench.path("rules")) << "[inject-error]\nevent = \"" << event << "\"\nonce = \"on\"\n";
        OpenOptions options = bench.options_for("x.qcow2");
        options.cache = CacheMode::writeback;
        options.filename = "blkdebug:" + bench.path("rules") + ":" + bench.path("x.qcow2");
        auto image = bench.run(open_image(bench.context, options));
        if (!image.ok()) return "open";
        std::string failed = "none";
        std::vector<std::uint8_t> data(4096);
        if (!bench.run(read_bytes(**image, 0, Bytes(data))).ok())
            failed = "read";
        else if (!bench.run(write_bytes(**image, 5 << 20, ConstBytes(data))).ok())
            failed = "write";
        else if (!bench.run((*image)->flush()).ok())
            failed = "flush";
        (void)bench.run(close_image(std::move(image).value()));
        return failed;
    };
    EXPECT_EQ(first_failure("none_of_them_fires_here"), "open"); // no such event
    EXPECT_EQ(first_failure("reftable_load"), "open");
    EXPECT_EQ(first_failure("l2_load"), "read");
    EXPECT_EQ(first_failure("refblock_load"), "write");
    EXPECT_EQ(first_failure("pwritev"), "write");
    EXPECT_EQ(first_failure("flush_to_disk"), "flush");
    EXPECT_EQ(first_failure("vmstate_load"), "none");
}

} // namespace
} // namespace vmm::block
