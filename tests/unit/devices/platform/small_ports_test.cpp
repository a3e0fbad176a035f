// Port 92, the debug ports and the test device.
#include "devices/platform/debug_ports.h"
#include "devices/platform/pc_testdev.h"
#include "devices/platform/port92.h"
#include "tests/support/fake_char_sink.h"
#include "tests/support/fake_irq_line.h"
#include "vmm/memory/address_space.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;

TEST(Port92, a20_follows_bit_1_and_reset_fires_on_the_rise_of_bit_0) {
    test::FakeIrqLine a20, reset;
    Port92 port{{a20, reset}};
    port.write(0, 1, 0x02);
    EXPECT_TRUE(a20.level());
    port.write(0, 1, 0x03);
    port.write(0, 1, 0x03);
    EXPECT_EQ(reset.rises(), 1u);
    EXPECT_EQ(port.read(0, 1), 0x03u);
    port.write(0, 1, 0x00);
    EXPECT_FALSE(a20.level());
}

TEST(Port92, a_loaded_state_drives_a20_but_does_not_reset) {
    test::FakeIrqLine a20, reset;
    Port92 port{{a20, reset}};
    port.write(0, 1, 0x03);
    StateWriter writer;
    port.save(writer);
    port.reset();
    StateReader reader(writer.bytes());
    ASSERT_TRUE(port.load(reader).ok());
    EXPECT_TRUE(a20.level());
    EXPECT_EQ(reset.rises(), 1u);
}

TEST(DebugConsole, bytes_reach_the_sink_and_reads_identify_the_port) {
    test::FakeCharSink sink;
    DebugConsole console(sink);
    console.write(0, 1, 'h');
    console.write(0, 1, 'i');
    EXPECT_EQ(sink.text(), "hi");
    EXPECT_EQ(console.read(0, 1), 0xe9u);
}

TEST(IsaDebugExit, status_is_twice_the_value_plus_one) {
    int status = -1;
    IsaDebugExit port([&](int s) { status = s; });
    port.write(0, 4, 0x10);
    EXPECT_EQ(status, 0x21);
    port.write(0, 1, 0);
    EXPECT_EQ(status, 1);
    EXPECT_EQ(port.read(0, 1), 0u);
}

TEST(PostPort, remembers_the_last_code) {
    PostPort port;
    port.write(0, 1, 0x55);
    EXPECT_EQ(port.read(0, 1), 0x55u);
}

namespace {
// The device where the suites expect it.
struct Testdev : testing::Test {
    std::array<test::FakeIrqLine, 24> lines;
    std::vector<IrqLine*> pointers = [this] {
        std::vector<IrqLine*> all;
        for (auto& line : lines) all.push_back(&line);
        return all;
    }();
    PcTestdev device{pointers};
    AddressSpace io{"I/O", 0xffff}, memory{"memory", UINT64_MAX};
    Testdev() {
        auto put = [](AddressSpace& space, std::uint64_t at, std::uint64_t size, IoHandler& h, AccessRules rules) {
            space.map({.name = "testdev", .range = AddressRange::of(at, size), .backing = Backing::of_io(h, rules)});
        };
        put(io, PcTestdev::latch_port, 4, device.latch(), PcTestdev::latch_rules);
        put(io, PcTestdev::flush_port, 4, device.flush(), PcTestdev::flush_rules);
        put(io, PcTestdev::byte_port, 1, device.byte(), PcTestdev::byte_rules);
        put(io, PcTestdev::irq_port, PcTestdev::irq_lines, device.irqs(), PcTestdev::irq_rules);
        put(memory, PcTestdev::scratch_address, PcTestdev::scratch_size, device.scratch(), PcTestdev::scratch_rules);
    }
};
} // namespace

TEST_F(Testdev, latch_is_read_and_written_in_every_size) {
    io.write(0xe0, 4, 0x12345678);
    EXPECT_EQ(io.read(0xe0, 4), 0x12345678u);
    EXPECT_EQ(io.read(0xe0, 2), 0x5678u);
    EXPECT_EQ(io.read(0xe0, 1), 0x78u);
    io.write(0xe0, 1, 0xff);
    EXPECT_EQ(io.read(0xe0, 4), 0x123456ffu);
}

TEST_F(Testdev, byte_latch_and_flush_port_take_their_writes) {
    io.write(0xe8, 1, 0x42);
    EXPECT_EQ(io.read(0xe8, 1), 0x42u);
    io.write(0xe4, 4, 0x1000);
    io.write(0xe4, 4, 0x2000);
    device.flushed(3);
    EXPECT_EQ(io.read(0xe4, 4), 5u);
}

TEST_F(Testdev, writing_to_0x2000_plus_n_drives_line_n) {
    io.write(0x2000 + 9, 1, 1);
    EXPECT_TRUE(lines[9].level());
    EXPECT_FALSE(lines[8].level());
    io.write(0x2000 + 9, 4, 0); // a wide write names only its first lines
    EXPECT_FALSE(lines[9].level());
}

TEST_F(Testdev, scratch_is_byte_addressable_over_all_64_kib) {
    memory.write(0xff00fff9, 4, 0xaabbccdd);
    EXPECT_EQ(memory.read(0xff00fffb, 1), 0xbbu);
    EXPECT_EQ(memory.read(0xff00fff8, 8), 0xaabbccdd00u);
    EXPECT_EQ(memory.read(0xff010000, 1), 0xffu);
}

TEST_F(Testdev, a_loaded_state_is_seen_through_the_regions_and_lines) {
    memory.write(0xff000000, 1, 7);
    io.write(0x2003, 1, 1);
    StateWriter writer;
    device.save(writer);
    device.reset();
    EXPECT_FALSE(lines[3].level());
    StateReader reader(writer.bytes());
    ASSERT_TRUE(device.load(reader).ok());
    EXPECT_EQ(memory.read(0xff000000, 1), 7u);
    EXPECT_TRUE(lines[3].level());
}
