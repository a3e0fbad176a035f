#include "vmm/memory/address_space.h"

#include <gtest/gtest.h>

#include <random>

using namespace vmm;

namespace {
// Remembers accesses; reads give the offset bytes.
struct Recorder final : IoHandler {
    std::vector<std::string> seen;
    std::uint64_t read(std::uint64_t offset, unsigned size) override {
        seen.push_back(fmt::format("r{}@{:x}", size, offset));
        std::uint64_t v = 0;
        for (unsigned i = 0; i < size; ++i) v |= std::uint64_t(std::uint8_t(offset + i)) << (8 * i);
        return v;
    }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
        seen.push_back(fmt::format("w{}@{:x}={:x}", size, offset, value));
    }
};
} // namespace

TEST(AddressSpace, a_higher_priority_mapping_hides_a_lower_one_and_uncovers_it_again) {
    AddressSpace space("memory", UINT64_MAX);
    auto ram = RamBlock::create("ram", 0x10000).value();
    auto shadow = RamBlock::create("shadow", 0x1000).value();
    space.map({.name = "ram", .range = AddressRange::of(0, 0x10000), .backing = Backing::of_ram(*ram)});
    space.write(0x2ffe, 4, 0x11223344);
    auto id = space.map({.name = "over",
                         .range = AddressRange::of(0x3000, 0x1000),
                         .backing = Backing::of_ram(*shadow),
                         .priority = 1});
    EXPECT_EQ(space.read(0x2ffe, 4), 0x3344u);
    space.unmap(id);
    EXPECT_EQ(space.read(0x2ffe, 4), 0x11223344u);
}

TEST(AddressSpace, a_reads_mapping_leaves_writes_to_what_lies_beneath) {
    AddressSpace space("memory", UINT64_MAX);
    auto ram = RamBlock::create("ram", 0x1000).value();
    auto rom = RamBlock::create("rom", 0x1000).value();
    rom->host()[5] = 0xaa;
    space.map({.name = "ram", .range = AddressRange::of(0, 0x1000), .backing = Backing::of_ram(*ram)});
    space.map({.name = "rom",
               .range = AddressRange::of(0, 0x1000),
               .backing = Backing::of_ram(*rom),
               .priority = 1,
               .use = MapFor::reads});
    space.write(5, 1, 0x55);
    EXPECT_EQ(space.read(5, 1), 0xaau);
    EXPECT_EQ(ram->host()[5], 0x55);
}

TEST(AddressSpace, unmapped_bytes_read_as_ones_and_the_top_byte_is_reachable) {
    AddressSpace space("memory", UINT64_MAX);
    auto ram = RamBlock::create("ram", 0x1000).value();
    space.map({.name = "top", .range = AddressRange::of(UINT64_MAX - 0xfff, 0x1000), .backing = Backing::of_ram(*ram)});
    EXPECT_EQ(space.read(0x1234, 2), 0xffffu);
    space.write(UINT64_MAX, 1, 7);
    EXPECT_EQ(ram->host()[0xfff], 7);
    EXPECT_FALSE(AddressRange::create(UINT64_MAX, 2).ok());
}

TEST(AddressSpace, accesses_are_split_and_widened_to_what_the_handler_takes) {
    AddressSpace space("I/O", 0xffff);
    Recorder bytes, words;
    space.map({.name = "b", .range = AddressRange::of(0x60, 8), .backing = Backing::of_io(bytes, {.max_impl = 1})});
    space.map({.name = "w",
               .range = AddressRange::of(0x100, 8),
               .backing = Backing::of_io(words, {.min_impl = 4, .max_impl = 4})});
    EXPECT_EQ(space.read(0x62, 2), 0x0302u);
    EXPECT_EQ(bytes.seen, (std::vector<std::string>{"r1@2", "r1@3"}));
    EXPECT_EQ(space.read(0x103, 2), 0x0403u);
    EXPECT_EQ(words.seen, (std::vector<std::string>{"r4@0", "r4@4"}));
    space.write(0x60, 4, 0x04030201);
    EXPECT_EQ(bytes.seen.back(), "w1@3=4");
}

TEST(AddressSpace, sizes_a_region_does_not_decode_read_as_ones) {
    AddressSpace space("memory", UINT64_MAX);
    Recorder io;
    space.map({.name = "io",
               .range = AddressRange::of(0, 16),
               .backing = Backing::of_io(io, {.min_guest = 4, .max_guest = 4})});
    EXPECT_EQ(space.read(0, 1), 0xffu);
    space.write(0, 8, 1);
    EXPECT_TRUE(io.seen.empty());
}

TEST(AddressSpace, the_flat_view_equals_a_byte_by_byte_model_under_random_mappings) {
    AddressSpace space("memory", UINT64_MAX);
    auto ram = RamBlock::create("ram", 0x4000).value();
    for (unsigned i = 0; i < 0x4000; ++i) ram->host()[i] = std::uint8_t(i * 7 + (i >> 8));
    std::mt19937 random(1);
    std::map<MappingId, Mapping> live;
    for (int step = 0; step < 300; ++step) {
        if (!live.empty() && random() % 3 == 0) {
            auto it = std::next(live.begin(), random() % live.size());
            space.unmap(it->first);
            live.erase(it);
        } else {
            std::uint64_t base = random() % 64, size = 1 + random() % 64;
            Mapping m{.name = "m",
                      .range = AddressRange::of(base, size),
                      .backing = Backing::of_ram(*ram, random() % 0x3000),
                      .priority = int(random() % 4)};
            live[space.map(m)] = m;
        }
        for (std::uint64_t a = 0; a < 140; ++a) {
            Mapping const* best = nullptr;
            for (auto const& [id, m] : live)
                if (m.range.contains(a) && (!best || m.priority >= best->priority)) best = &m;
            std::uint8_t want = best ? ram->host()[best->backing.offset + a - best->range.first] : 0xff;
            ASSERT_EQ(space.read(a, 1), want) << "step " << step << " address " << a;
        }
    }
}

TEST(RamBlock, tells_the_code_observer_only_about_pages_with_code_and_logs_dirty_pages) {
    struct Observer final : CodeWriteObserver {
        std::vector<std::uint64_t> at;
        void code_written(RamBlock&, std::uint64_t offset, std::uint64_t) override { at.push_back(offset); }
    } observer;
    auto ram = RamBlock::create("ram", 0x4000).value();
    ram->set_code_observer(&observer);
    ram->notes(0x1000) |= page_has_code;
    ram->start_dirty_log();
    ram->written(0x10, 4);
    ram->written(0xffe, 4);
    EXPECT_EQ(observer.at, std::vector<std::uint64_t>{0xffe});
    EXPECT_TRUE(ram->page_dirty(0) && ram->page_dirty(0x1000));
    EXPECT_FALSE(ram->page_dirty(0x2000));
    EXPECT_TRUE(ram->test_and_clear_dirty(0));
    EXPECT_FALSE(ram->test_and_clear_dirty(0));
}
