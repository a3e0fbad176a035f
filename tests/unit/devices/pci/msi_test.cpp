#include "tests/unit/devices/pci/fakes.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;
using Sent = std::vector<std::pair<std::uint64_t, std::uint32_t>>;

namespace {
struct Msi : testing::Test {
    PciFunction function{{.vendor = 1, .device = 2}};
    test::FakeMsiTarget sink;
    MsiCapability msi{function, sink, 4};
    unsigned at = function.read(0x34, 1);
    Msi() {
        function.on_write([this](unsigned offset, unsigned size) { msi.config_written(offset, size); });
        function.write(4, 2, 4);
        function.write(at + 4, 4, 0xfee01000);
        function.write(at + 12, 2, 0x4030);
    }
};
} // namespace

TEST_F(Msi, says_what_it_can_do) { EXPECT_EQ(function.read(at + 2, 2), 0x0184u); }

TEST_F(Msi, sends_address_and_data_with_the_vector_in_the_granted_bits) {
    msi.notify(0);
    EXPECT_TRUE(sink.sent.empty());    // not enabled
    function.write(at + 2, 2, 0x0011); // two granted
    msi.notify(1);
    msi.notify(2);
    EXPECT_EQ(sink.sent, (Sent{{0xfee01000, 0x4031}, {0xfee01000, 0x4030}}));
}

TEST_F(Msi, a_masked_vector_is_pending_until_unmasked) {
    function.write(at + 2, 2, 0x0011);
    function.write(at + 16, 4, 1);
    msi.notify(0);
    EXPECT_TRUE(sink.sent.empty());
    EXPECT_EQ(function.read(at + 20, 4), 1u);
    function.write(at + 16, 4, 0);
    EXPECT_EQ(sink.sent.size(), 1u);
    EXPECT_EQ(function.read(at + 20, 4), 0u);
}

TEST_F(Msi, no_message_leaves_a_function_that_may_not_master_the_bus) {
    function.write(at + 2, 2, 0x0001);
    function.write(4, 2, 0);
    msi.notify(0);
    EXPECT_TRUE(sink.sent.empty());
}

namespace {
struct Msix : testing::Test {
    test::FakePci pci;
    PciFunction function{{.vendor = 1, .device = 2}};
    test::FakeMsiTarget sink;
    MsixCapability msix{function, sink, {.vectors = 3, .bar = 1, .table_offset = 0, .pending_offset = 0x800}};
    unsigned at = function.read(0x34, 1);
    static constexpr GuestPhys bar = 0xfebf0000;
    Msix() {
        function.add_bar(1, {.kind = PciBarKind::memory32,
                             .size = 0x1000,
                             .name = "msix",
                             .windows = {msix.table_window(), msix.pending_window()}});
        function.on_write([this](unsigned offset, unsigned size) { msix.config_written(offset, size); });
        pci.bus.attach({1, 0}, function).value();
        function.write(0x14, 4, bar);
        function.write(4, 2, 6);
        pci.memory.write(bar + 16, 8, 0xfee02000);
        pci.memory.write(bar + 24, 4, 0x41);
    }
};
} // namespace

TEST_F(Msix, capability_names_size_and_places) {
    EXPECT_EQ(function.read(at + 2, 2), 2u);
    EXPECT_EQ(function.read(at + 4, 4), 0x001u);
    EXPECT_EQ(function.read(at + 8, 4), 0x801u);
}

TEST_F(Msix, an_unmasked_vector_sends_its_tables_message) {
    function.write(at + 2, 2, 0x8000);
    pci.memory.write(bar + 28, 4, 0);
    msix.notify(1);
    EXPECT_EQ(sink.sent, (Sent{{0xfee02000, 0x41}}));
}

TEST_F(Msix, masked_vectors_are_pending_until_both_masks_are_off) {
    function.write(at + 2, 2, 0xc000);
    msix.notify(1);
    EXPECT_EQ(pci.memory.read(bar + 0x800, 8), 2u);
    function.write(at + 2, 2, 0x8000); // vectors come up masked
    EXPECT_TRUE(sink.sent.empty());
    pci.memory.write(bar + 28, 4, 0);
    EXPECT_EQ(sink.sent, (Sent{{0xfee02000, 0x41}}));
    EXPECT_EQ(pci.memory.read(bar + 0x800, 8), 0u);
}

TEST_F(Msix, a_state_for_another_number_of_vectors_is_refused) {
    auto state = msix.state();
    EXPECT_TRUE(msix.check(state).ok());
    state.table.pop_back();
    EXPECT_FALSE(msix.check(state).ok());
    state = msix.state();
    state.pending[0] = 8;
    EXPECT_FALSE(msix.check(state).ok());
}
