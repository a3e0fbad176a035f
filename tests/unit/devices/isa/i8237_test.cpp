#include "devices/isa/i8237.h"
#include "tests/support/rigs/isa_rigs.h"

using namespace vmm;
using namespace vmm::dev;

TEST(I8237Pair, address_and_count_are_written_and_read_through_the_flip_flop) {
    I8237Pair dma;
    dma.first().write(12, 1, 0);
    dma.first().write(4, 1, 0x34);
    dma.first().write(4, 1, 0x12);
    EXPECT_EQ(dma.first().read(4, 1), 0x34u);
    EXPECT_EQ(dma.first().read(4, 1), 0x12u);
    EXPECT_EQ(dma.state().controllers[0].channels[2].base_address, 0x1234);
}

TEST(I8237Pair, the_second_controllers_registers_lie_at_even_ports) {
    I8237Pair dma;
    dma.second().write(0x06, 1, 0x78); // channel 5's count
    dma.second().write(0x06, 1, 0x56);
    EXPECT_EQ(dma.state().controllers[1].channels[1].base_count, 0x5678);
}

TEST(I8237Pair, masks_start_set_and_are_changed_by_bit_or_as_a_whole) {
    I8237Pair dma;
    EXPECT_EQ(dma.state().controllers[0].mask, 0x0f);
    dma.first().write(10, 1, 0x02);
    EXPECT_EQ(dma.state().controllers[0].mask, 0x0b);
    dma.first().write(14, 1, 0);
    EXPECT_EQ(dma.state().controllers[0].mask, 0);
    dma.first().write(13, 1, 0);
    EXPECT_EQ(dma.state().controllers[0].mask, 0x0f);
}

TEST(I8237Pair, page_registers_keep_their_bytes) {
    I8237Pair dma;
    dma.pages().write(0x87 - I8237Pair::page_port, 1, 0xab);
    EXPECT_EQ(dma.pages().read(0x87 - I8237Pair::page_port, 1), 0xabu);
}

namespace vmm::test {
INSTANTIATE_TYPED_TEST_SUITE_P(I8237, DeviceConformance, DmaRig);
} // namespace vmm::test
