#include "vmm/machine/pc/smm_memory.h"

#include <gtest/gtest.h>

using namespace vmm;

namespace {
// RAM with a device over the place where SMRAM hides.
struct Smm : testing::Test {
    struct Screen final : IoHandler {
        std::uint64_t read(std::uint64_t, unsigned) override { return 0x77; }
        void write(std::uint64_t, unsigned, std::uint64_t) override {}
    } screen;
    std::unique_ptr<RamBlock> ram = RamBlock::create("pc.ram", MiB).value();
    AddressSpace memory{"memory", ~std::uint64_t(0)};
    bool enabled = false;
    SmmMemory smm{memory, *ram, [this] { return enabled; }};
    static constexpr std::uint64_t MiB = 1024 * 1024;

    void SetUp() override {
        memory.map({.name = "ram", .range = AddressRange::of(0, MiB), .backing = Backing::of_ram(*ram)});
        memory.map({.name = "screen",
                    .range = AddressRange::of(SmmMemory::base, SmmMemory::size),
                    .backing = Backing::of_io(screen),
                    .priority = 1});
        ram->host()[0xa1234] = 0x12;
        ram->host()[0x1234] = 0x34;
    }
};
} // namespace

TEST_F(Smm, shows_what_everybody_sees_until_smram_is_enabled) {
    EXPECT_EQ(smm.space().read(0x1234, 1), 0x34u);
    EXPECT_EQ(smm.space().read(0xa1234, 1), 0x77u);
    enabled = true;
    smm.refresh();
    EXPECT_EQ(smm.space().read(0xa1234, 1), 0x12u);
    EXPECT_EQ(memory.read(0xa1234, 1), 0x77u);
    smm.space().write(0xa1235, 1, 0x56);
    EXPECT_EQ(ram->host()[0xa1235], 0x56);
    EXPECT_EQ(smm.space().read(0x1234, 1), 0x34u);
}

TEST_F(Smm, follows_changes_of_the_map) {
    enabled = true;
    smm.refresh();
    MappingId id = memory.map(
        {.name = "hole", .range = AddressRange::of(0, 0x1000), .backing = Backing::of_io(screen), .priority = 1});
    EXPECT_EQ(smm.space().read(0x10, 1), 0x77u);
    EXPECT_EQ(smm.space().read(0xa1234, 1), 0x12u);
    memory.unmap(id);
    EXPECT_EQ(smm.space().read(0x10, 1), 0u);
}
