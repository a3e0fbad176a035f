#include "tests/support/fake_frontend.h"
#include "ui/chardev/mux.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::ui;
using namespace vmm::test;

namespace {
// A mux with a serial port and a monitor on a fake terminal.
struct MuxTest : testing::Test {
    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    FakeStream* host = new FakeStream;
    int quits = 0;
    Nanoseconds now = 0;
    Mux mux{*loop,
            std::unique_ptr<CharStream>(host),
            {.escape = 0x01,
             .quit = [this] { ++quits; },
             .commit_drives = [] { return 2; },
             .now = [this] { return now; }}};
    FakeFrontend serial, monitor;
    CharStream& serial_stream = mux.add_channel();
    CharStream& monitor_stream = mux.add_channel();
    void SetUp() override {
        serial_stream.set_frontend(&serial);
        monitor_stream.set_frontend(&monitor);
        loop->run_once(0);
    }
};
} // namespace

TEST_F(MuxTest, typed_text_goes_to_the_serial_port_first) {
    host->type("ls\r");
    EXPECT_EQ(serial.received, "ls\r");
    EXPECT_EQ(monitor.received, "");
}

TEST_F(MuxTest, c_moves_the_focus_in_turn_and_tells_both) {
    host->type("\x01"
               "cinfo");
    EXPECT_EQ(monitor.received, "info");
    EXPECT_TRUE(serial.saw(CharEvent::focus_lost));
    EXPECT_TRUE(monitor.saw(CharEvent::focus_gained));
    host->type("\x01"
               "cx");
    EXPECT_EQ(serial.received, "x");
}

TEST_F(MuxTest, h_and_question_mark_print_the_keys) {
    std::string const help = "\n\r"
                             "C-a h    print this help\n\r"
                             "C-a x    exit emulator\n\r"
                             "C-a s    save disk data back to file (if -snapshot)\n\r"
                             "C-a t    toggle console timestamps\n\r"
                             "C-a b    send break (magic sysrq)\n\r"
                             "C-a c    switch between console and monitor\n\r"
                             "C-a C-a  sends C-a\n\r";
    host->type("\x01h");
    EXPECT_EQ(host->written, help);
    host->written.clear();
    host->type("\x01?");
    EXPECT_EQ(host->written, help);
}

TEST_F(MuxTest, x_says_goodbye_and_quits) {
    host->type("\x01x");
    EXPECT_EQ(host->written, "QEMU: Terminated\n\r");
    EXPECT_EQ(quits, 1);
}

TEST_F(MuxTest, s_commits_and_says_how_many) {
    host->type("\x01s");
    EXPECT_EQ(host->written, "committed 2 disks\r\n");
}

TEST_F(MuxTest, b_is_a_break_for_the_focused_channel) {
    host->type("\x01"
               "b");
    EXPECT_TRUE(serial.saw(CharEvent::serial_break));
    EXPECT_FALSE(monitor.saw(CharEvent::serial_break));
}

TEST_F(MuxTest, the_escape_twice_is_itself_and_an_unknown_key_nothing) {
    host->type("\x01\x01\x01zq");
    EXPECT_EQ(serial.received, "\x01q");
}

TEST_F(MuxTest, t_stamps_lines_from_the_first_output_on) {
    serial_stream.write(bytes_of("boot\n"));
    host->type("\x01t");
    now = 5'000'000'000;
    serial_stream.write(bytes_of("old line\none\n"));
    now += 3'723'004'000'000;
    serial_stream.write(bytes_of("two"));
    serial_stream.write(bytes_of("more\n"));
    host->type("\x01t");
    serial_stream.write(bytes_of("plain\n"));
    EXPECT_EQ(host->written, "boot\nold line\n[00:00:00.000] one\n[01:02:03.004] twomore\nplain\n");
}

TEST_F(MuxTest, a_slow_terminal_holds_channels_back_and_loses_nothing) {
    host->room = 10;
    std::string text(5000, 'x');
    std::size_t n = serial_stream.write(bytes_of(text));
    EXPECT_LT(n, text.size());
    host->room = SIZE_MAX;
    host->frontend->writable();
    EXPECT_EQ(serial.writable_calls, 1);
    EXPECT_EQ(monitor.writable_calls, 0) << "it was not held back";
    EXPECT_EQ(host->written, text.substr(0, n));
}

TEST_F(MuxTest, keys_work_while_the_guest_takes_no_input) {
    serial.capacity = 0;
    host->type("waiting");
    host->type("\x01x");
    EXPECT_EQ(quits, 1);
    serial.capacity = SIZE_MAX;
    serial_stream.accept_input();
    loop->run_once(0);
    EXPECT_EQ(serial.received, "waiting");
}

TEST_F(MuxTest, only_the_focused_channel_hears_that_somebody_came) {
    serial.events.clear();
    host->frontend->event(CharEvent::opened);
    EXPECT_TRUE(serial.saw(CharEvent::opened));
    EXPECT_FALSE(monitor.saw(CharEvent::opened)) << "its greeting comes with the first focus";
    host->frontend->event(CharEvent::closed);
    EXPECT_TRUE(monitor.saw(CharEvent::closed));
}

TEST(Mux, echr_changes_the_key_and_its_name) {
    auto loop = EventLoop::create().value();
    auto* host = new FakeStream;
    Mux mux(*loop, std::unique_ptr<CharStream>(host), {.escape = 0x14, .quit = {}, .commit_drives = {}, .now = {}});
    FakeFrontend front;
    mux.add_channel().set_frontend(&front);
    host->type("\x01\x14h");
    EXPECT_EQ(front.received, "\x01");
    EXPECT_NE(host->written.find("C-t h    print this help"), std::string::npos);
}
