#include "devices/serial/uart16550.h"
#include "tests/support/fake_char_sink.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_irq_line.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;

namespace {
enum : unsigned {
    RBR = 0,
    THR = 0,
    DLL = 0,
    IER = 1,
    DLM = 1,
    IIR = 2,
    FCR = 2,
    LCR = 3,
    MCR = 4,
    LSR = 5,
    MSR = 6,
    SCR = 7
};

struct Uart : testing::Test {
    test::FakeClock clock;
    TimerQueue timers{clock};
    test::FakeIrqLine irq;
    test::FakeCharSink sink;
    Uart16550 uart{{irq, timers, sink}};

    unsigned in(unsigned reg) { return unsigned(uart.read(reg, 1)); }
    void out(unsigned reg, unsigned value) { uart.write(reg, 1, value); }
    void receive(std::string_view text) {
        ASSERT_LE(text.size(), uart.can_receive());
        uart.receive({reinterpret_cast<std::uint8_t const*>(text.data()), text.size()});
    }
    void enable(unsigned ier, unsigned fcr = 0) {
        out(MCR, 0x08);
        out(FCR, fcr);
        out(IER, ier);
    }
};
} // namespace

TEST_F(Uart, registers_have_the_data_sheets_reset_values) {
    EXPECT_EQ(in(IER), 0u);
    EXPECT_EQ(in(IIR), 0x01u);
    EXPECT_EQ(in(LCR), 0u);
    EXPECT_EQ(in(MCR), 0u);
    EXPECT_EQ(in(LSR), 0x60u);
    EXPECT_EQ(in(MSR), 0xb0u);
}

TEST_F(Uart, divisor_latch_lies_behind_dlab_and_scratch_keeps_its_byte) {
    out(LCR, 0x83);
    out(DLL, 0x34);
    out(DLM, 0x12);
    EXPECT_EQ(in(DLL), 0x34u);
    EXPECT_EQ(in(DLM), 0x12u);
    out(LCR, 0x03);
    EXPECT_EQ(in(IER), 0u);
    EXPECT_TRUE(sink.text().empty());
    out(SCR, 0x5a);
    EXPECT_EQ(in(SCR), 0x5au);
}

TEST_F(Uart, a_character_is_sent_at_once_and_raises_thre_until_iir_is_read) {
    enable(0x02);
    EXPECT_EQ(in(IIR), 0x02u); // THR is empty already
    EXPECT_FALSE(irq.level());
    out(THR, 'A');
    EXPECT_EQ(sink.text(), "A");
    EXPECT_TRUE(irq.level());
    EXPECT_EQ(in(IIR), 0x02u);
    EXPECT_FALSE(irq.level());
    EXPECT_EQ(in(IIR), 0x01u);
}

TEST_F(Uart, enabling_thre_again_raises_it_again) {
    enable(0x02);
    EXPECT_EQ(in(IIR), 0x02u);
    out(IER, 0);
    out(IER, 2);
    EXPECT_EQ(in(IIR), 0x02u);
}

TEST_F(Uart, a_full_sink_holds_thre_back_until_it_is_writable) {
    enable(0x02, 0x01);
    in(IIR);
    sink.set_room(1);
    out(THR, 'a');
    in(IIR);
    out(THR, 'b');
    out(THR, 'c');
    EXPECT_EQ(in(LSR)&0x60, 0u);
    EXPECT_FALSE(irq.level());
    sink.make_room(1);
    EXPECT_EQ(in(LSR)&0x60, 0u);
    sink.make_room(100);
    EXPECT_EQ(sink.text(), "abc");
    EXPECT_EQ(in(LSR)&0x60, 0x60u);
    EXPECT_TRUE(irq.level());
}

// xv6 writes 0 to MCR and waits for interrupts.
TEST_F(Uart, interrupts_without_out2_and_in_loopback) {
    enable(0x01);
    out(MCR, 0);
    receive("x");
    EXPECT_TRUE(irq.level());
    in(RBR);
    EXPECT_FALSE(irq.level());
    out(MCR, 0x10);
    out(THR, 'y');
    EXPECT_TRUE(irq.level());
}

TEST_F(Uart, without_fifo_one_character_is_held_and_read) {
    enable(0x01);
    receive("x");
    EXPECT_EQ(uart.can_receive(), 0u);
    EXPECT_EQ(in(LSR)&1, 1u);
    EXPECT_EQ(in(RBR), unsigned('x'));
    EXPECT_FALSE(irq.level());
    EXPECT_EQ(uart.can_receive(), 1u);
}

TEST_F(Uart, fifo_interrupts_at_its_trigger_level) {
    enable(0x01, 0x41); // trigger 4
    receive("abc");
    EXPECT_FALSE(irq.level());
    receive("d");
    EXPECT_EQ(in(IIR), 0xc4u);
    in(RBR);
    EXPECT_FALSE(irq.level());
}

TEST_F(Uart, characters_below_the_trigger_time_out_after_four_character_times) {
    out(LCR, 0x83);
    out(DLL, 1);
    out(DLM, 0);
    out(LCR, 0x03); // 115200 8N1: 10 bits
    enable(0x01, 0xc1);
    receive("ab");
    Nanoseconds four = 4LL * 10 * 1'000'000'000 / 115200;
    clock.advance(timers, four - 1);
    EXPECT_FALSE(irq.level());
    clock.advance(timers, 1);
    EXPECT_EQ(in(IIR), 0xccu);
    EXPECT_EQ(in(RBR), unsigned('a'));
    EXPECT_FALSE(irq.level());
    clock.advance(timers, four);
    EXPECT_EQ(in(IIR), 0xccu);
    in(RBR);
    clock.advance(timers, four * 4);
    EXPECT_EQ(in(IIR), 0xc1u);
}

TEST_F(Uart, the_host_is_told_when_there_is_room_again) {
    unsigned told = 0;
    uart.set_on_can_receive([&] { ++told; });
    receive("x");
    in(RBR);
    EXPECT_EQ(told, 1u);
}

TEST_F(Uart, loopback_returns_characters_and_modem_outputs_and_hears_no_host) {
    out(MCR, 0x1a);
    EXPECT_EQ(in(MSR)&0xf0, 0x90u); // RTS as CTS, OUT2 as DCD: what drivers probe
    out(THR, 'q');
    EXPECT_EQ(in(RBR), unsigned('q'));
    EXPECT_TRUE(sink.text().empty());
    EXPECT_EQ(uart.can_receive(), 0u);
    EXPECT_FALSE(irq.level());
}

TEST_F(Uart, modem_deltas_interrupt_and_ring_only_on_its_trailing_edge) {
    out(MCR, 0x10);
    in(MSR);
    out(MCR, 0x14); // OUT1 -> RI rises
    EXPECT_EQ(in(MSR), 0x40u);
    out(MCR, 0x10);
    EXPECT_EQ(in(MSR), 0x04u);
    out(MCR, 0x11);
    EXPECT_EQ(in(MSR), 0x22u);
    out(IER, 0x08);
    out(MCR, 0x10);
    EXPECT_EQ(in(IIR), 0x00u);
}

TEST_F(Uart, overrun_in_loopback_is_a_line_status_interrupt_of_highest_priority) {
    enable(0x07);
    out(MCR, 0x18);
    out(THR, 'a');
    out(THR, 'b');
    EXPECT_EQ(in(IIR), 0x06u);
    EXPECT_EQ(in(LSR)&0x02, 0x02u);
    EXPECT_EQ(in(LSR)&0x02, 0u);
    EXPECT_EQ(in(IIR), 0x04u);
    EXPECT_EQ(in(RBR), unsigned('b'));
    EXPECT_EQ(in(IIR), 0x02u);
}

TEST_F(Uart, a_received_break_shows_when_it_reaches_the_top_of_the_fifo) {
    enable(0x04, 0x01);
    receive("a");
    uart.receive_break();
    EXPECT_FALSE(irq.level());
    EXPECT_EQ(in(LSR), 0xe1u); // bit 7: an error is somewhere in the FIFO
    EXPECT_EQ(in(RBR), unsigned('a'));
    EXPECT_EQ(in(IIR), 0xc6u);
    EXPECT_EQ(in(LSR), 0xf1u);
    EXPECT_EQ(in(LSR), 0x61u);
    EXPECT_EQ(in(RBR), 0u);
}

TEST_F(Uart, set_break_reaches_the_line) {
    out(LCR, 0x43);
    EXPECT_TRUE(sink.in_break());
    out(LCR, 0x03);
    EXPECT_FALSE(sink.in_break());
}

TEST_F(Uart, switching_the_fifo_empties_it) {
    enable(0x01, 0x01);
    receive("abc");
    out(FCR, 0);
    EXPECT_EQ(in(LSR), 0x60u);
    EXPECT_FALSE(irq.level());
}

TEST_F(Uart, a_saved_state_loads_elsewhere_with_its_interrupt_and_timeout) {
    enable(0x01, 0xc1);
    receive("a");
    StateWriter writer;
    uart.save(writer);
    auto bytes = writer.take();

    test::FakeIrqLine other_irq;
    test::FakeCharSink other_sink;
    Uart16550 other{{other_irq, timers, other_sink}};
    StateReader reader(bytes);
    ASSERT_TRUE(other.load(reader).ok());
    clock.advance(timers, nanoseconds_per_second);
    EXPECT_TRUE(other_irq.level());
    EXPECT_EQ(other.read(RBR, 1), unsigned('a'));
}

TEST_F(Uart, an_impossible_fifo_count_is_refused) {
    enable(0x01, 0x01);
    receive("aaaaaaaaaaaaaaaa");
    StateWriter writer;
    uart.save(writer);
    auto bytes = writer.take();
    std::string text(bytes.begin(), bytes.end());
    std::size_t at = text.find("receiver.count") + 14 + 5;
    bytes[at] = 17;
    StateReader reader(bytes);
    EXPECT_FALSE(uart.load(reader).ok());
}
