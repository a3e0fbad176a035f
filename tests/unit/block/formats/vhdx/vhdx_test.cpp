// VHDX: conformance, images of qemu-img read back, the log replayed, damaged structures.
#include "block/core/capabilities.h"
#include "block/formats/vhdx/header.h"
#include "block/formats/vhdx/log.h"
#include "tests/support/image_conformance.h"
#include "vmm/base/checked.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>

using namespace vmm;
using namespace vmm::block;

namespace {

ImageProfile vhdx_profile() {
    ImageProfile profile;
    profile.format = "vhdx";
    return profile;
}

TEST(Vhdx, conforms) {
    std::uint64_t seed = 1;
    for (char const* options : {"block_size=1M", "", "subformat=fixed,block_size=1M", "block_size=2M,log_size=3M"}) {
        ImageProfile profile = vhdx_profile();
        profile.create_options = options;
        profile.seed = seed++;
        profile.operations = 600;
        image_conforms(profile);
    }
}

TEST(Vhdx, power_cuts_lose_nothing_that_was_flushed) {
    ImageProfile profile = vhdx_profile();
    profile.create_options = "block_size=1M";
    image_survives_power_cuts(profile);
}

void save(std::string const& path, std::vector<std::uint8_t> const& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<char const*>(bytes.data()), std::streamsize(bytes.size()));
}

std::vector<std::uint8_t> load(std::string const& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// An image made by qemu-img of `content`, or a skip.
std::vector<std::uint8_t> qemu_image(BlockBench& bench, std::vector<std::uint8_t> const& content,
                                     std::string const& options) {
    save(bench.path("raw"), content);
    auto made = run_command("cd " + bench.path("") + " && qemu-img convert -f raw -O vhdx " + options + " raw v");
    EXPECT_EQ(made.exit_code, 0) << made.output;
    return load(bench.path("v"));
}

TEST(Vhdx, images_of_qemu_are_read) {
    if (!have_qemu_img()) GTEST_SKIP();
    for (char const* options : {"", "-o block_size=1M", "-o subformat=fixed", "-o block_size=2M,log_size=2M"}) {
        BlockBench bench;
        std::vector<std::uint8_t> content = patchy_noise(1, 20 * MiB + 512);
        qemu_image(bench, content, options);
        auto opened = open_profile_image(bench, vhdx_profile(), "v", true);
        ASSERT_TRUE(opened.ok()) << opened.error().message();
        EXPECT_EQ(read_whole(bench, **opened).value(), content) << options;
        auto ignore = [](std::string_view) {};
        CheckReport report = bench.run((*opened)->capabilities().checkable->check(RepairMode::none, ignore)).value();
        EXPECT_EQ(report.corruptions, 0u);
    }
}

TEST(Vhdx, blocks_beyond_the_first_chunk_are_found) {
    if (!have_qemu_img()) GTEST_SKIP();
    BlockBench bench;
    auto made = run_command("cd " + bench.path("") +
                            " && qemu-img create -f vhdx -o block_size=1M v 20G && qemu-io -f "
                            "vhdx -c 'write -P 5 4095M 64k' -c 'write -P 6 4096M 64k' -c 'write -P 7 19G 64k' v");
    ASSERT_EQ(made.exit_code, 0) << made.output;
    auto image = open_profile_image(bench, vhdx_profile(), "v", true).value();
    std::vector<std::uint8_t> found(65536);
    std::uint8_t value = 5;
    for (std::uint64_t at : {4095 * MiB, 4096 * MiB, 19 * GiB}) {
        ASSERT_TRUE(bench.run(read_bytes(*image, at, found)).ok());
        EXPECT_EQ(found, std::vector<std::uint8_t>(65536, value++));
    }
}

// A log entry that writes `page` at `target` and zeroes `zero_bytes` at `zero_at`.
std::vector<std::uint8_t> log_entry(std::uint64_t sequence, std::uint32_t tail, vhdx::Guid const& id,
                                    std::vector<std::uint8_t> const& page, std::uint64_t target, std::uint64_t zero_at,
                                    std::uint64_t zero_bytes) {
    std::vector<std::uint8_t> e(8192);
    auto text = [&](std::size_t at, char const* word) { std::memcpy(e.data() + at, word, 4); };
    text(0, "loge");
    store_le<std::uint32_t>(e.data() + 8, 8192);
    store_le<std::uint32_t>(e.data() + 12, tail);
    store_le<std::uint64_t>(e.data() + 16, sequence);
    store_le<std::uint32_t>(e.data() + 24, 2);
    std::memcpy(e.data() + 32, id.data(), 16);
    text(64, "desc");
    std::memcpy(e.data() + 68, page.data() + 4092, 4);
    std::memcpy(e.data() + 72, page.data(), 8);
    store_le<std::uint64_t>(e.data() + 80, target);
    store_le<std::uint64_t>(e.data() + 88, sequence);
    text(96, "zero");
    store_le<std::uint64_t>(e.data() + 104, zero_bytes);
    store_le<std::uint64_t>(e.data() + 112, zero_at);
    store_le<std::uint64_t>(e.data() + 120, sequence);
    text(4096, "data");
    store_le<std::uint32_t>(e.data() + 4100, std::uint32_t(sequence >> 32));
    std::memcpy(e.data() + 4104, page.data() + 8, 4084);
    store_le<std::uint32_t>(e.data() + 8188, std::uint32_t(sequence));
    store_le<std::uint32_t>(e.data() + 4, vhdx::checksum_of(e));
    return e;
}

TEST(VhdxLog, active_sequence_is_replayed_also_around_the_end_of_the_ring) {
    vhdx::Guid id{1, 2, 3};
    std::vector<std::uint8_t> page = patchy_noise(1, 4096), other(4096, 0x11), log(MiB);
    auto put = [&](std::size_t at, std::vector<std::uint8_t> const& entry) {
        for (std::size_t i = 0; i < entry.size(); ++i) log[(at + i) % log.size()] = entry[i];
    };
    std::uint32_t tail = MiB - 4096;
    put(tail, log_entry(10, tail, id, other, 4 * MiB, 5 * MiB, 8192)); // wraps around
    put(4096, log_entry(11, tail, id, page, 4 * MiB, 6 * MiB, 4096));
    put(20480, log_entry(4, 20480, id, other, 7 * MiB, 0, 0));             // older: not of the sequence
    put(40960, log_entry(99, 40960, vhdx::Guid{9}, other, 7 * MiB, 0, 0)); // another log
    auto patches = vhdx::replay_log(log, id, "x").value();
    ASSERT_EQ(patches.size(), 4u);
    EXPECT_EQ(patches[0].bytes, other);
    EXPECT_EQ(patches[1].length, 8192u);
    EXPECT_EQ(patches[2].bytes, page);
    EXPECT_EQ(patches[2].offset, 4 * MiB);
    log[4096 + 200] ^= 1; // the head is torn: the entry before it is the head
    EXPECT_EQ(vhdx::replay_log(log, id, "x").value().size(), 2u);
    log[tail + 100] ^= 1;
    EXPECT_EQ(vhdx::replay_log(log, id, "x").value()[0].offset, 7 * MiB);
}

TEST(Vhdx, log_of_an_image_that_was_not_closed_is_applied_in_memory) {
    if (!have_qemu_img()) GTEST_SKIP();
    BlockBench bench;
    std::vector<std::uint8_t> content(4 * MiB, 0x42);
    std::vector<std::uint8_t> file = qemu_image(bench, content, "-o block_size=1M");
    // Active header: the one with the higher sequence number.
    std::size_t at = 65536;
    if (load_le<std::uint64_t>(&file[131072 + 8]) > load_le<std::uint64_t>(&file[65536 + 8])) at = 131072;
    vhdx::Guid id{7, 7};
    std::uint64_t log = load_le<std::uint64_t>(&file[at + 72]);
    std::memcpy(&file[at + 48], id.data(), 16);
    store_le<std::uint32_t>(&file[at + 4], vhdx::checksum_of(ConstBytes(file).subspan(at, 4096)));
    // The log says that block 1 is absent: its BAT entry, the second of the BAT's first page.
    std::uint64_t bat = 0;
    for (std::size_t i = 0; i < 2; ++i)
        if (std::memcmp(&file[196608 + 16 + 32 * i], vhdx::region_bat.data(), 16) == 0)
            bat = load_le<std::uint64_t>(&file[196608 + 16 + 32 * i + 16]);
    std::vector<std::uint8_t> page(file.begin() + std::ptrdiff_t(bat), file.begin() + std::ptrdiff_t(bat) + 4096);
    store_le<std::uint64_t>(&page[8], 0);
    auto entry = log_entry(1, 0, id, page, bat, 0, 0);
    std::ranges::copy(entry, file.begin() + std::ptrdiff_t(log));
    save(bench.path("d"), file);
    auto opened = open_profile_image(bench, vhdx_profile(), "d", true);
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    std::fill_n(content.begin() + MiB, MiB, std::uint8_t(0));
    EXPECT_EQ(read_whole(bench, **opened).value(), content);
    EXPECT_EQ(load(bench.path("d")), file); // nothing was written
    ASSERT_TRUE(bench.run(close_image(std::move(opened).value())).ok());
    // Opened for writing it is written out, and the log is empty then.
    auto image = open_profile_image(bench, vhdx_profile(), "d").value();
    EXPECT_EQ(read_whole(bench, *image).value(), content);
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    auto same = run_command("cd " + bench.path("") + " && qemu-img convert -f vhdx -O raw d e && qemu-img check d");
    EXPECT_EQ(same.exit_code, 0) << same.output;
    EXPECT_EQ(load(bench.path("e")), content);
}

TEST(Vhdx, damaged_images_end_in_an_answer) {
    if (!have_qemu_img()) GTEST_SKIP();
    BlockBench bench;
    std::vector<std::uint8_t> good = qemu_image(bench, patchy_noise(2, 3 * MiB), "-o block_size=1M");
    std::mt19937_64 random(5);
    std::vector<std::size_t> const places = {65536, 131072, 196608, 262144, 2 * MiB, 3 * MiB, 3 * MiB + 65536};
    for (unsigned i = 0; i < 200; ++i) {
        std::vector<std::uint8_t> bad = good;
        std::size_t at = places[random() % places.size()] + random() % 200;
        for (unsigned n = 1 + random() % 8; n; --n) bad[at++] = std::uint8_t(random() % 2 ? random() : 0xff);
        for (std::size_t table : {65536, 131072}) // checksums as they must be, so that the fields are looked at
            store_le<std::uint32_t>(&bad[table + 4], vhdx::checksum_of(ConstBytes(bad).subspan(table, 4096)));
        for (std::size_t table : {196608, 262144})
            store_le<std::uint32_t>(&bad[table + 4], vhdx::checksum_of(ConstBytes(bad).subspan(table, 65536)));
        if (random() % 8 == 0) bad.resize(random() % bad.size());
        save(bench.path("b"), bad);
        auto opened = open_profile_image(bench, vhdx_profile(), "b", true);
        if (!opened.ok() || (*opened)->size_bytes() > 64 * MiB) continue;
        (void)read_whole(bench, **opened).ok();
    }
}

TEST(Vhdx, hostile_metadata_is_refused_by_field) {
    auto message = [](std::vector<std::uint8_t> const& region) {
        auto disk = vhdx::parse_metadata(region, "x");
        return disk.ok() ? std::string() : disk.error().message();
    };
    std::vector<std::uint8_t> good(MiB);
    std::memcpy(good.data(), "metadata", 8);
    store_le<std::uint16_t>(&good[10], 3);
    auto item = [&](unsigned n, vhdx::Guid const& id, std::uint64_t value) {
        std::memcpy(&good[32 + 32 * n], id.data(), 16);
        store_le<std::uint32_t>(&good[48 + 32 * n], 65536 + 8 * n);
        store_le<std::uint32_t>(&good[52 + 32 * n], 8);
        store_le<std::uint64_t>(&good[65536 + 8 * n], value);
    };
    item(0, vhdx::item_file_parameters, MiB);
    item(1, vhdx::item_disk_size, 64 * MiB);
    item(2, vhdx::item_logical_sector, 512);
    EXPECT_EQ(message(good), "");
    item(0, vhdx::item_file_parameters, 3);
    EXPECT_NE(message(good).find("BlockSize"), std::string::npos);
    item(0, vhdx::item_file_parameters, MiB | std::uint64_t(2) << 32);
    EXPECT_NE(message(good).find("HasParent"), std::string::npos);
    item(0, vhdx::item_file_parameters, MiB);
    item(1, vhdx::item_disk_size, std::uint64_t(1) << 63);
    EXPECT_NE(message(good).find("VirtualDiskSize"), std::string::npos);
    item(1, vhdx::item_disk_size, 64 * MiB);
    item(2, vhdx::item_logical_sector, 7);
    EXPECT_NE(message(good).find("LogicalSectorSize"), std::string::npos);
    store_le<std::uint16_t>(&good[10], 60000);
    EXPECT_NE(message(good).find("EntryCount"), std::string::npos);
}

} // namespace
