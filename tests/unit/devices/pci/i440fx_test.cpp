#include "devices/pci/i440fx.h"
#include "tests/unit/devices/pci/fakes.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;

namespace {
struct HostBridge : testing::Test {
    AddressSpace memory{"memory", UINT64_MAX};
    std::unique_ptr<RamBlock> ram = RamBlock::create("pc.ram", 2 * 1024 * 1024).value();
    std::unique_ptr<RamBlock> rom = RamBlock::create("pc.bios", 256 * 1024).value();
    std::optional<I440fx> bridge;
    HostBridge() {
        memory.map({.name = "ram", .range = AddressRange::of(0, ram->size()), .backing = Backing::of_ram(*ram)});
        rom->host()[0x20000] = 0xe0; // what shows at 0xe0000
        rom->host()[0x3ffff] = 0xff;
        rom->host()[0x3fff0] = 0xea;
        bridge.emplace(I440fx::Needs{memory, *ram, rom.get()});
    }
    void pam(unsigned reg, unsigned value) { bridge->function().write(reg, 1, value); }
};
} // namespace

TEST_F(HostBridge, is_8086_1237) {
    EXPECT_EQ(bridge->function().read(0, 4), 0x12378086u);
    EXPECT_EQ(bridge->function().read(8, 4), 0x06000002u);
}

TEST_F(HostBridge, after_reset_the_rom_is_read_below_1_mib_and_writes_are_lost) {
    EXPECT_EQ(memory.read(0xffff0, 1), 0xeau);
    EXPECT_EQ(memory.read(0xe0000, 1), 0xe0u);
    EXPECT_EQ(memory.read(0xc0000, 2), 0xffffu);
    memory.write(0xf1234, 1, 0x55);
    EXPECT_EQ(ram->host()[0xf1234], 0);
    EXPECT_EQ(memory.read(0xf1234, 1), 0u);
}

TEST_F(HostBridge, write_enable_fills_shadow_ram_behind_the_rom_and_read_enable_shows_it) {
    pam(0x59, 0x20);
    memory.write(0xffff0, 1, 0x77);
    EXPECT_EQ(ram->host()[0xffff0], 0x77);
    EXPECT_EQ(memory.read(0xffff0, 1), 0xeau);
    pam(0x59, 0x10);
    EXPECT_EQ(memory.read(0xffff0, 1), 0x77u);
    memory.write(0xffff0, 1, 0x11);
    EXPECT_EQ(memory.read(0xffff0, 1), 0x77u);
}

TEST_F(HostBridge, each_half_register_governs_its_own_16_kib) {
    std::pair<unsigned, unsigned> halves[] = {{0x5a, 0}, {0x5a, 4}, {0x5b, 0}, {0x5b, 4}, {0x5c, 0}, {0x5c, 4},
                                              {0x5d, 0}, {0x5d, 4}, {0x5e, 0}, {0x5e, 4}, {0x5f, 0}, {0x5f, 4}};
    GuestPhys base = 0xc0000;
    for (auto [reg, shift] : halves) {
        pam(reg, 3u << shift);
        memory.write(base, 1, 0xa5);
        memory.write(base + 0x3fff, 1, 0x5a);
        EXPECT_EQ(ram->host()[base], 0xa5) << std::hex << base;
        EXPECT_EQ(ram->host()[base + 0x3fff], 0x5a) << std::hex << base;
        memory.write(base + 0x4000, 1, 0x99);
        EXPECT_NE(ram->host()[base + 0x4000], 0x99) << std::hex << base;
        pam(reg, 0);
        base += 0x4000;
    }
}

TEST_F(HostBridge, shadow_ram_can_be_opened_at_once_and_reset_closes_it) {
    bridge->enable_shadow_ram();
    for (GuestPhys a = 0xc0000; a < 0x100000; a += 0x4000) {
        memory.write(a, 4, a);
        EXPECT_EQ(memory.read(a, 4), a);
    }
    bridge->reset();
    EXPECT_EQ(memory.read(0xe0000, 1), 0xe0u);
}

TEST_F(HostBridge, the_vga_hole_shows_ram_only_while_smram_is_open) {
    memory.write(0xa0000, 1, 1);
    EXPECT_EQ(memory.read(0xa0000, 1), 0xffu);
    pam(0x72, 0x48);
    memory.write(0xa0000, 1, 2);
    EXPECT_EQ(memory.read(0xa0000, 1), 2u);
    EXPECT_EQ(ram->host()[0xa0000], 2);
    pam(0x72, 0x08);
    EXPECT_EQ(memory.read(0xa0000, 1), 0xffu);
}

TEST_F(HostBridge, locked_smram_is_closed_and_cannot_be_opened_until_reset) {
    pam(0x72, 0x58);
    EXPECT_EQ(bridge->function().read(0x72, 1), 0x1au);
    pam(0x72, 0x4a);
    EXPECT_EQ(bridge->function().read(0x72, 1), 0x1au);
    EXPECT_EQ(memory.read(0xa0000, 1), 0xffu);
    bridge->reset();
    EXPECT_EQ(bridge->function().read(0x72, 1), 0x02u);
    pam(0x72, 0x48);
    EXPECT_EQ(bridge->function().read(0x72, 1), 0x4au);
}

TEST_F(HostBridge, a_loaded_state_maps_shadow_ram_again) {
    bridge->enable_shadow_ram();
    memory.write(0xe0000, 1, 0x42);
    StateWriter writer;
    bridge->save(writer);
    bridge->reset();
    StateReader reader(writer.bytes());
    ASSERT_TRUE(bridge->load(reader).ok());
    EXPECT_EQ(memory.read(0xe0000, 1), 0x42u);
}

TEST_F(HostBridge, leaves_the_address_space_as_it_was) {
    bridge.reset();
    memory.write(0xa0000, 1, 5);
    memory.write(0xf0000, 1, 6);
    EXPECT_EQ(memory.read(0xa0000, 1), 5u);
    EXPECT_EQ(memory.read(0xf0000, 1), 6u);
}

TEST_F(HostBridge, tells_when_smram_is_enabled_or_disabled) {
    unsigned told = 0;
    bridge.reset();
    bridge.emplace(I440fx::Needs{.memory = memory, .ram = *ram, .on_smram_enable = [&] { ++told; }});
    bridge->function().write(0x72, 1, 0x0a);
    bridge->function().write(0x72, 1, 0x1a);
    EXPECT_EQ(told, 1u);
    EXPECT_TRUE(bridge->smram_enabled());
    bridge->reset();
    EXPECT_EQ(told, 2u);
    EXPECT_FALSE(bridge->smram_enabled());
}
