#include "devices/pci/config_ports.h"
#include "tests/unit/devices/pci/fakes.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;

namespace {
constexpr PciIdentity identity = {.vendor = 0x1234, .device = 0x5678, .class_code = 0x020000, .interrupt_pin = 1};

struct Function : testing::Test {
    test::FakePci pci;
    test::FakeRegisters registers;
    PciFunction function{identity};

    void add(PciBarKind kind, std::uint64_t size) {
        function.add_bar(0, {.kind = kind,
                             .size = size,
                             .name = "bar",
                             .windows = {{.offset = 0, .size = size, .backing = Backing::of_io(registers)}}});
    }
    void attach() { ASSERT_TRUE(pci.bus.attach({3, 0}, function).ok()); }
};
} // namespace

TEST_F(Function, identity_is_read_only_and_class_is_in_its_bytes) {
    function.write(0, 4, 0xffffffff);
    EXPECT_EQ(function.read(0, 4), 0x56781234u);
    EXPECT_EQ(function.read(8, 4), 0x02000000u);
    EXPECT_EQ(function.read(0x3d, 1), 1u);
}

TEST_F(Function, status_errors_are_cleared_by_writing_one_and_only_those) {
    function.set(6, 2, 0xf900);
    function.write(6, 2, 0x1100);
    EXPECT_EQ(function.read(6, 2), 0xe800u);
    function.write(6, 2, 0x0010); // capabilities list: read-only
    EXPECT_EQ(function.read(6, 2), 0xe800u);
}

TEST_F(Function, a_bar_sized_with_ones_shows_its_size_and_flags) {
    add(PciBarKind::memory32_prefetchable, 0x10000);
    function.write(0x10, 4, 0xffffffff);
    EXPECT_EQ(function.read(0x10, 4), 0xffff0008u);
    PciFunction wide(identity);
    wide.add_bar(2, {.kind = PciBarKind::memory64, .size = std::uint64_t(1) << 33});
    wide.write(0x18, 4, 0xffffffff);
    wide.write(0x1c, 4, 0xffffffff);
    EXPECT_EQ(wide.read(0x18, 4), 0x00000004u);
    EXPECT_EQ(wide.read(0x1c, 4), 0xfffffffeu);
}

TEST_F(Function, a_memory_bar_decodes_where_it_is_put_while_memory_is_enabled) {
    add(PciBarKind::memory32, 0x1000);
    attach();
    function.write(0x10, 4, 0xfebf0000);
    pci.memory.write(0xfebf0004, 4, 0x11);
    EXPECT_EQ(registers.value, 0u);
    function.write(4, 2, 2);
    pci.memory.write(0xfebf0004, 4, 0x22);
    EXPECT_EQ(registers.value, 0x22u);
    function.write(0x10, 4, 0xfebe0000);
    EXPECT_EQ(pci.memory.read(0xfebf0004, 4), 0xffffffffu);
    EXPECT_EQ(pci.memory.read(0xfebe0004, 4), 0x22u);
    function.write(4, 2, 0);
    EXPECT_EQ(pci.memory.read(0xfebe0004, 4), 0xffffffffu);
}

TEST_F(Function, a_64_bit_bar_decodes_above_4_gib) {
    add(PciBarKind::memory64, 0x1000);
    attach();
    function.write(4, 2, 2);
    function.write(0x10, 4, 0x1000);
    function.write(0x14, 4, 0x20);
    pci.memory.write(0x2000001000, 4, 5);
    EXPECT_EQ(registers.value, 5u);
    function.write(0x14, 4, 0xffffffff); // beyond any address a CPU has
    EXPECT_FALSE(function.bar_range(0).has_value());
}

TEST_F(Function, an_io_bar_decodes_in_io_space_and_not_past_its_end) {
    add(PciBarKind::io, 0x40);
    attach();
    function.write(4, 2, 1);
    function.write(0x10, 4, 0xc001);
    EXPECT_EQ(function.read(0x10, 4), 0xc001u);
    pci.io.write(0xc000, 4, 9);
    EXPECT_EQ(registers.value, 9u);
    function.write(0x10, 4, 0x1c000);
    EXPECT_FALSE(function.bar_range(0).has_value());
}

TEST_F(Function, ram_hides_a_bar_put_upon_it) {
    auto ram = RamBlock::create("ram", 0x10000).value();
    pci.memory.map({.name = "ram", .range = AddressRange::of(0, 0x10000), .backing = Backing::of_ram(*ram)});
    add(PciBarKind::memory32, 0x1000);
    attach();
    function.write(4, 2, 2);
    function.write(0x10, 4, 0x1000);
    pci.memory.write(0x1000, 4, 7);
    EXPECT_EQ(registers.value, 0u);
    EXPECT_EQ(ram->host()[0x1000], 7);
}

TEST_F(Function, an_expansion_rom_is_read_only_and_needs_its_enable_bit) {
    auto rom = RamBlock::create("rom", 0x1000).value();
    rom->host()[0] = 0x55;
    function.add_rom(*rom, "rom");
    attach();
    function.write(4, 2, 2);
    function.write(0x30, 4, 0xfeb00000);
    EXPECT_EQ(pci.memory.read(0xfeb00000, 1), 0xffu);
    function.write(0x30, 4, 0xfeb00001);
    pci.memory.write(0xfeb00000, 1, 0);
    EXPECT_EQ(pci.memory.read(0xfeb00000, 1), 0x55u);
}

TEST_F(Function, intx_pulls_its_wire_until_disabled_and_shows_in_status) {
    attach(); // device 3, pin A: wire (0 + 3 - 1) & 3
    function.set_intx(true);
    EXPECT_TRUE(pci.router.wires[2]);
    EXPECT_EQ(function.read(6, 2) & 8, 8u);
    function.write(4, 2, 0x400);
    EXPECT_FALSE(pci.router.wires[2]);
    function.write(4, 2, 0);
    EXPECT_TRUE(pci.router.wires[2]);
    function.set_intx(false);
    EXPECT_FALSE(pci.router.wires[2]);
}

TEST_F(Function, a_shared_wire_stays_high_until_the_last_lets_go) {
    PciFunction other(identity);
    attach();
    ASSERT_TRUE(pci.bus.attach({7, 0}, other).ok());
    function.set_intx(true);
    other.set_intx(true);
    function.set_intx(false);
    EXPECT_TRUE(pci.router.wires[2]);
    pci.bus.detach({7, 0});
    EXPECT_FALSE(pci.router.wires[2]);
}

TEST_F(Function, function_0_says_multifunction_when_it_has_company) {
    PciFunction other(identity);
    attach();
    EXPECT_EQ(function.read(0xe, 1), 0u);
    ASSERT_TRUE(pci.bus.attach({3, 1}, other).ok());
    EXPECT_EQ(function.read(0xe, 1), 0x80u);
}

TEST_F(Function, a_taken_slot_is_refused_by_name) {
    PciFunction other(identity);
    attach();
    auto result = pci.bus.attach({3, 0}, other);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.error().message().find("03.0"), std::string::npos);
}

TEST_F(Function, capabilities_form_a_list) {
    unsigned first = function.add_capability(0x09, 5);
    unsigned second = function.add_capability(0x05, 8);
    EXPECT_EQ(function.read(0x34, 1), second);
    EXPECT_EQ(function.read(second + 1, 1), first);
    EXPECT_EQ(function.read(first + 1, 1), 0u);
    EXPECT_EQ(function.read(6, 2) & 0x10, 0x10u);
}

TEST_F(Function, another_devices_state_is_refused_and_its_own_maps_bars_again) {
    add(PciBarKind::memory32, 0x1000);
    attach();
    function.write(4, 2, 2);
    function.write(0x10, 4, 0xfebf0000);
    PciFunction::State saved = function.state();
    function.reset();
    EXPECT_EQ(pci.memory.read(0xfebf0000, 4), 0xffffffffu);
    ASSERT_TRUE(function.check(saved).ok());
    function.restore(saved);
    EXPECT_EQ(pci.memory.read(0xfebf0000, 4), 0u);
    saved.config[0] ^= 1;
    EXPECT_FALSE(function.check(saved).ok());
}

TEST_F(Function, info_pci_lists_address_identity_interrupt_and_bars) {
    add(PciBarKind::memory32, 0x1000);
    attach();
    function.write(4, 2, 2);
    function.write(0x10, 4, 0xfebf0000);
    function.write(0x3c, 1, 11);
    EXPECT_EQ(pci.bus.describe(), "  Bus  0, device   3, function 0:\n"
                                  "    Ethernet controller: PCI device 1234:5678\n"
                                  "      PCI subsystem 1af4:1100\n"
                                  "      IRQ 11, pin A\n"
                                  "      BAR0: 32 bit memory at 0xfebf0000 [0xfebf0fff].\n"
                                  "      id \"\"\n");
    function.write(4, 2, 0);
    EXPECT_NE(pci.bus.describe().find("BAR0: 32 bit memory at 0xffffffffffffffff [0x00000ffe]."), std::string::npos);
}

TEST_F(Function, mechanism_1_reaches_functions_of_bus_0_only) {
    attach();
    test::FakeRegisters reset_control;
    PciConfigPorts ports({pci.bus, reset_control});
    pci.io.map({.name = "pci-conf",
                .range = AddressRange::of(PciConfigPorts::port, PciConfigPorts::region_size),
                .backing = Backing::of_io(ports, PciConfigPorts::access_rules)});
    pci.io.write(0xcf8, 4, 0x80001800);
    EXPECT_EQ(pci.io.read(0xcf8, 4), 0x80001800u);
    EXPECT_EQ(pci.io.read(0xcfc, 4), 0x56781234u);
    EXPECT_EQ(pci.io.read(0xcfe, 2), 0x5678u);
    EXPECT_EQ(pci.io.read(0xcfd, 1), 0x12u);
    pci.io.write(0xcf8, 4, 0x80002000);
    EXPECT_EQ(pci.io.read(0xcfc, 4), 0xffffffffu);
    EXPECT_EQ(pci.io.read(0xcfc, 2), 0xffffu);
    pci.io.write(0xcf8, 4, 0x80011800);
    EXPECT_EQ(pci.io.read(0xcfc, 4), 0xffffffffu);
    pci.io.write(0xcf8, 4, 0x00001800);
    EXPECT_EQ(pci.io.read(0xcfc, 4), 0xffffffffu);
    // Narrow accesses pass CONFADD by; the byte at 0xcf9 is the reset control.
    pci.io.write(0xcf8, 4, 0x80001800);
    pci.io.write(0xcf9, 1, 0x06);
    EXPECT_EQ(reset_control.value, 6u);
    EXPECT_EQ(pci.io.read(0xcf8, 4), 0x80001800u);
}
