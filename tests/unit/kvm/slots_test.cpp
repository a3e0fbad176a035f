// Memory slots against a page-by-page model of the flat view.
#include "vmm/kvm/kvm_slots.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace vmm::kvm {

namespace {

struct NullIo final : IoHandler {
    std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
    void write(std::uint64_t, unsigned, std::uint64_t) override {}
};

// What each page ought to be by the flat view itself.
struct Page {
    RamBlock* ram;
    std::uint64_t offset;
    bool read_only;
    bool operator==(Page const&) const = default;
};
std::map<GuestPhys, Page> model_of(FlatView const& view, std::uint64_t pages) {
    std::map<GuestPhys, Page> result;
    for (GuestPhys a = 0; a < pages * page_size; a += page_size) {
        auto piece_of = [&](bool write, GuestPhys at) { return write ? view.find_write(at) : view.find_read(at); };
        FlatRange const* read = piece_of(false, a);
        if (!read || !read->backing.ram || read->range.last < a + page_size - 1) continue;
        std::uint64_t offset = read->backing.offset + (a - read->range.first);
        if (offset & (page_size - 1)) continue;
        FlatRange const* write = piece_of(true, a);
        bool same = write && write->backing.ram == read->backing.ram && write->range.last >= a + page_size - 1 &&
                    write->backing.offset + (a - write->range.first) == offset;
        result[a] = {read->backing.ram, offset, !same};
    }
    return result;
}

std::map<GuestPhys, Page> pages_of(std::vector<Slot> const& slots) {
    std::map<GuestPhys, Page> result;
    for (Slot const& slot : slots)
        for (std::uint64_t at = 0; at < slot.size; at += page_size) {
            EXPECT_FALSE(result.contains(slot.address + at)) << "slots overlap";
            result[slot.address + at] = {slot.ram, slot.offset + at, slot.read_only};
        }
    return result;
}

struct SlotsTest : testing::Test {
    std::unique_ptr<RamBlock> ram = RamBlock::create("ram", 64 * page_size).value();
    std::unique_ptr<RamBlock> rom = RamBlock::create("rom", 64 * page_size).value();
    NullIo io;
    AddressSpace space{"memory", ~std::uint64_t(0)};
    void map(char const* name, GuestPhys at, std::uint64_t size, Backing backing, int priority = 0,
             MapFor use = MapFor::both) {
        space.map(
            {.name = name, .range = AddressRange::of(at, size), .backing = backing, .priority = priority, .use = use});
    }
};

} // namespace

TEST_F(SlotsTest, plain_ram_is_one_slot) {
    map("ram", 0, ram->size(), Backing::of_ram(*ram));
    auto slots = wanted_slots(space.view());
    ASSERT_EQ(slots.size(), 1u);
    EXPECT_EQ(slots[0].size, ram->size());
    EXPECT_FALSE(slots[0].read_only);
}

TEST_F(SlotsTest, rom_over_ram_is_read_only_between_two_plain_slots) {
    map("ram", 0, ram->size(), Backing::of_ram(*ram));
    map("rom", 8 * page_size, 4 * page_size, Backing::of_ram(*rom), 1, MapFor::reads);
    auto slots = wanted_slots(space.view());
    ASSERT_EQ(slots.size(), 3u);
    EXPECT_TRUE(slots[1].read_only);
    EXPECT_EQ(slots[1].ram, rom.get());
    EXPECT_EQ(slots[2].address, 12 * page_size);
}

TEST_F(SlotsTest, a_device_is_a_hole_and_parts_of_pages_are_left_out) {
    map("ram", 0, ram->size(), Backing::of_ram(*ram));
    map("device", 5 * page_size + 0x100, 0x20, Backing::of_io(io), 1);
    auto slots = wanted_slots(space.view());
    ASSERT_EQ(slots.size(), 2u);
    EXPECT_EQ(slots[0].size, 5 * page_size);
    EXPECT_EQ(slots[1].address, 6 * page_size);
}

TEST_F(SlotsTest, an_alias_shows_the_same_memory_twice) {
    map("ram", 0, ram->size(), Backing::of_ram(*ram));
    map("alias", 1 << 30, 16 * page_size, Backing::of_ram(*ram, 16 * page_size));
    auto slots = wanted_slots(space.view());
    ASSERT_EQ(slots.size(), 2u);
    EXPECT_EQ(slots[1].offset, 16 * page_size);
}

TEST_F(SlotsTest, random_maps_agree_with_the_flat_view_page_by_page) {
    std::mt19937 random(7);
    for (unsigned round = 0; round < 200; ++round) {
        AddressSpace s("memory", ~std::uint64_t(0));
        for (unsigned n = 0; n < 1 + random() % 8; ++n) {
            std::uint64_t first = random() % 56, pages = 1 + random() % 8;
            bool odd = random() % 8 == 0;
            auto& block = random() % 2 ? ram : rom;
            Backing backing =
                random() % 4 == 0 ? Backing::of_io(io) : Backing::of_ram(*block, (random() % 48) * page_size);
            MapFor use = backing.io ? MapFor::both : MapFor(1 + random() % 3);
            s.map({.name = "x",
                   .range = AddressRange::of(first * page_size + (odd ? 0x200 : 0), pages * page_size),
                   .backing = backing,
                   .priority = int(random() % 3),
                   .use = use});
        }
        EXPECT_EQ(pages_of(wanted_slots(s.view())), model_of(s.view(), 80)) << "round " << round;
    }
}

TEST_F(SlotsTest, changes_bring_a_kernel_that_refuses_overlaps_from_any_set_to_any_other) {
    std::mt19937 random(11);
    SlotTable table(32);
    std::map<unsigned, Slot> kernel;
    for (unsigned round = 0; round < 300; ++round) {
        std::vector<Slot> wanted;
        for (GuestPhys at = 0; at < 40 * page_size;) {
            std::uint64_t pages = 1 + random() % 6;
            if (random() % 3)
                wanted.push_back({.address = at,
                                  .size = pages * page_size,
                                  .ram = ram.get(),
                                  .offset = (random() % 2) * page_size,
                                  .read_only = random() % 4 == 0,
                                  .dirty_log = random() % 4 == 0});
            at += (pages + random() % 3) * page_size;
        }
        auto changes = table.update(wanted);
        ASSERT_TRUE(changes);
        for (auto const& [slot, remove] : *changes) {
            if (remove) {
                ASSERT_EQ(kernel.erase(slot.id), 1u);
                continue;
            }
            if (auto found = kernel.find(slot.id); found != kernel.end()) {
                ASSERT_TRUE(found->second.same_place(slot)) << "a slot in use was moved";
                ASSERT_EQ(found->second.read_only, slot.read_only);
            }
            for (auto const& [id, other] : kernel)
                ASSERT_TRUE(id == slot.id || slot.address + slot.size <= other.address ||
                            other.address + other.size <= slot.address);
            kernel[slot.id] = slot;
        }
        ASSERT_EQ(kernel.size(), wanted.size());
        for (Slot const& slot : wanted) {
            bool found = false;
            for (auto const& [id, other] : kernel)
                found |=
                    other.same_place(slot) && other.read_only == slot.read_only && other.dirty_log == slot.dirty_log;
            ASSERT_TRUE(found);
        }
        for (auto const& [id, slot] : kernel) ASSERT_LT(id, 32u);
    }
}

TEST_F(SlotsTest, more_slots_than_the_limit_are_refused_whole) {
    SlotTable table(1);
    std::vector<Slot> two{{.address = 0, .size = page_size, .ram = ram.get()},
                          {.address = 2 * page_size, .size = page_size, .ram = ram.get()}};
    EXPECT_FALSE(table.update(two));
    EXPECT_TRUE(table.slots().empty());
}

} // namespace vmm::kvm
