// Partition tables, honest and hostile.
#include "block/tools/common/partitions.h"
#include "tests/support/block_bench.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

using namespace vmm;
using namespace vmm::block;

namespace {

constexpr std::size_t sector = 512;

void put_le32(std::vector<std::uint8_t>& to, std::size_t at, std::uint32_t v) {
    for (int i = 0; i < 4; ++i) to[at + i] = std::uint8_t(v >> 8 * i);
}
void put_entry(std::vector<std::uint8_t>& disk, std::size_t table, int index, std::uint8_t type, std::uint32_t start,
               std::uint32_t count) {
    std::size_t at = table * sector + 446 + index * 16;
    disk[at + 4] = type;
    put_le32(disk, at + 8, start);
    put_le32(disk, at + 12, count);
    disk[table * sector + 510] = 0x55;
    disk[table * sector + 511] = 0xaa;
}

std::vector<Partition> partitions_of(std::vector<std::uint8_t> const& disk) {
    BlockBench bench;
    std::ofstream(bench.path("d"), std::ios::binary)
        .write(reinterpret_cast<char const*>(disk.data()), std::streamsize(disk.size()));
    OpenOptions options;
    options.filename = bench.path("d");
    options.format = "raw";
    options.read_only = true;
    auto image = bench.run(open_image(bench.context, options)).value();
    auto found = bench.run(read_partitions(*image));
    EXPECT_TRUE(found.ok());
    EXPECT_TRUE(bench.run(close_image(std::move(image))).ok());
    return found.ok() ? *found : std::vector<Partition>{};
}

TEST(read_partitions, mbr_with_logical_partitions) {
    std::vector<std::uint8_t> disk(2048 * sector);
    put_entry(disk, 0, 0, 0x83, 64, 100);
    put_entry(disk, 0, 1, 0x05, 1000, 500);
    put_entry(disk, 1000, 0, 0x82, 8, 50);
    put_entry(disk, 1000, 1, 0x05, 100, 60);
    put_entry(disk, 1100, 0, 0x83, 4, 40);
    auto list = partitions_of(disk);
    ASSERT_EQ(list.size(), 3u);
    EXPECT_EQ(list[0].number, 1u);
    EXPECT_EQ(list[0].offset, 64 * sector);
    EXPECT_EQ(list[0].length, 100 * sector);
    EXPECT_EQ(list[1].number, 5u);
    EXPECT_EQ(list[1].offset, 1008 * sector);
    EXPECT_EQ(list[2].number, 6u);
    EXPECT_EQ(list[2].offset, 1104 * sector);
    EXPECT_EQ(list[2].type, "0x83");
}

TEST(read_partitions, loops_and_entries_past_the_end_do_no_harm) {
    std::vector<std::uint8_t> disk(2048 * sector);
    put_entry(disk, 0, 0, 0x83, 2000, 0xffffffff);
    put_entry(disk, 0, 1, 0x83, 0xfffffff0, 100);
    put_entry(disk, 0, 2, 0x05, 1000, 500);
    put_entry(disk, 1000, 1, 0x05, 100, 1);
    put_entry(disk, 1100, 1, 0x05, 100, 1); // itself
    auto list = partitions_of(disk);
    ASSERT_EQ(list.size(), 1u);
    EXPECT_EQ(list[0].length, 48 * sector);
}

TEST(read_partitions, gpt) {
    std::vector<std::uint8_t> disk(2048 * sector);
    put_entry(disk, 0, 0, 0xee, 1, 2047);
    std::memcpy(&disk[sector], "EFI PART", 8);
    put_le32(disk, sector + 72, 2);
    put_le32(disk, sector + 80, 128);
    put_le32(disk, sector + 84, 128);
    std::size_t entry = 2 * sector + 128; // the second
    disk[entry] = 1;
    put_le32(disk, entry + 32, 100);
    put_le32(disk, entry + 40, 199);
    auto list = partitions_of(disk);
    ASSERT_EQ(list.size(), 1u);
    EXPECT_EQ(list[0].number, 2u);
    EXPECT_EQ(list[0].offset, 100 * sector);
    EXPECT_EQ(list[0].length, 100 * sector);
    put_le32(disk, sector + 72, 0xffffffff); // table far beyond the disk: fall back to the MBR
    EXPECT_EQ(partitions_of(disk).size(), 1u);
}

TEST(read_partitions, none_on_an_empty_or_tiny_disk) {
    EXPECT_TRUE(partitions_of(std::vector<std::uint8_t>(4096)).empty());
    EXPECT_TRUE(partitions_of(std::vector<std::uint8_t>(100)).empty());
}

} // namespace
