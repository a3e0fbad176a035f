#include "monitor/monitor.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/fake_machine_control.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::monitor;
using namespace vmm::test;

namespace {
struct MonitorTest : testing::Test {
    FakeStream stream;
    FakeMachineControl machine;
    Log log{"vmm"};
    Monitor monitor{{.stream = stream, .machine = machine, .log = log, .version = "1.2.3", .vm_name = "it"}};
};
using Rows = std::vector<std::pair<std::string_view, std::string_view>>;
} // namespace

TEST_F(MonitorTest, replies_are_word_for_word) {
    Rows const rows = {
        {"", ""},
        {"foo", "unknown command: 'foo'\n"},
        {"info foo", "unknown command: 'info foo'\n"},
        {"help foo", "unknown command: 'foo'\n"},
        {"\"quit\"", "unknown command: '\"quit\"'\n"},
        {"help quit", "quit|q  -- quit the emulator\n"},
        {"help x", "x /fmt addr -- virtual memory dump starting at 'addr'\n"},
        {"help s", "stop|s  -- stop emulation\n"},
        {"help info status", "info status  -- show the current VM status (running|paused)\n"},
        {"quit x", "quit|q: extraneous characters at the end of line\nTry \"help quit\" for more information\n"},
        {"x", "unexpected end of expression\nTry \"help x\" for more information\n"},
        {"x/4xb zz", "invalid char 'z' in expression\nTry \"help x\" for more information\n"},
        {"x/k 0", "invalid char in format: 'k'\nTry \"help x\" for more information\n"},
        {"log", "log: string expected\nTry \"help log\" for more information\n"},
        {"p (1", "')' expected\nTry \"help p\" for more information\n"},
        {"p 1/0", "division by zero\nTry \"help p\" for more information\n"},
        {"p $foo", "unknown register\nTry \"help p\" for more information\n"},
        {"p 1 2", "print|p: extraneous characters at the end of line\nTry \"help p\" for more information\n"},
        {"p 1+2*3", "0x7\n"},
        {"p 1|2&3^4", "0x7\n"},
        {"p ~1", "0xfffffffffffffffe\n"},
        {"p $pc", "0xfff0\n"},
        {"p/d -1", "-1\n"},
        {"p/c 65", "'A'\n"},
        {"p/o 8", "010\n"},
        {"p/x 0", "0\n"},
        {"info status", "VM status: running\n"},
        {"info kvm", "kvm support: disabled\n"},
        {"info version", "1.2.3\n"},
        {"info name", "it\n"},
        {"info cpus", "* CPU #0: thread_id=100\n  CPU #1: thread_id=101\n"},
        {"info registers", "\nCPU#0\nRAX=0\n"},
        {"info registers -a", "\nCPU#0\nRAX=0\n\nCPU#1\nRAX=1\n"},
        {"info irq", "irq 0: 1\n"},
        {"info mtree -f", "tree -f\n"},
        {"info stat", "VM status: running\n"},
        {"info snapshot", "Error: no block device can store vmstate for snapshot\n"},
        {"info m", "unknown command: 'info m'\n"},
        {"savevm a", "Error: savevm is not built yet\n"},
        {"cpu 7", "invalid CPU index\n"},
        {"system_reset", ""},
    };
    for (auto const& [line, reply] : rows) EXPECT_EQ(monitor.execute(line), reply) << line;
}

TEST_F(MonitorTest, commands_reach_the_machine_by_name_alias_and_prefix) {
    for (char const* line : {"stop", "s", "cont", "c", "system_reset", "system_res", "system_powerdown", "nmi", "q"})
        EXPECT_EQ(monitor.execute(line), "") << line;
    EXPECT_EQ(machine.calls,
              (std::vector<std::string>{"stop", "stop", "cont", "cont", "reset", "reset", "powerdown", "nmi", "quit"}));
    machine.run_state = RunState::shutdown;
    EXPECT_EQ(monitor.execute("c"), "Error: Resetting the Virtual Machine is required\n");
}

TEST_F(MonitorTest, memory_is_dumped_as_qemu_does) {
    for (unsigned i = 0; i < 0x100; ++i) machine.memory[i] = std::uint8_t(i);
    machine.memory[0x20] = 'C';
    Rows const rows = {
        {"xp/20xb 0", "0000000000000000: 0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07\n"
                      "0000000000000008: 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f\n"
                      "0000000000000010: 0x10 0x11 0x12 0x13\n"},
        {"xp/2xg 8", "0000000000000008: 0x0f0e0d0c0b0a0908 0x1716151413121110\n"},
        {"xp/3dg 0x8000",
         "0000000000008000:                    0                    0\n0000000000008010:                    0\n"},
        {"xp/2dh 0x8000", "0000000000008000:     0     0\n"},
        {"xp/2oh 0x8000", "0000000000008000:      0      0\n"},
        {"xp/1db 0xff", "00000000000000ff:  -1\n"},
        {"xp/2cb 0x20", "0000000000000020: 'C' '!'\n"},
        {"x/1xw 0x100000", "0000000000100000: 0x03020100\n"},
        {"x/1xw 0", "0000000000000000: Cannot access memory\n"},
        {"xp/1xw 0xfffe", "000000000000fffe: Cannot access memory\n"},
        {"xp/2i 0", "0x00000000:  00 01                    nop\n0x00000002:  02 03                    nop\n"},
    };
    for (auto const& [line, reply] : rows) EXPECT_EQ(monitor.execute(line), reply) << line;
}

TEST_F(MonitorTest, log_sets_the_traces_and_lists_them_for_a_wrong_name) {
    EXPECT_EQ(monitor.execute("log int,cpu"), "");
    EXPECT_EQ(log.trace_mask(), std::uint32_t(Trace::interrupts) | std::uint32_t(Trace::cpu));
    EXPECT_EQ(monitor.execute("log none"), "");
    EXPECT_EQ(log.trace_mask(), 0u);
    EXPECT_EQ(monitor.execute("log foo").substr(0, 64),
              "Log items (comma separated):\nnone            remove all logs\nout");
}

TEST_F(MonitorTest, help_info_lists_topics_by_name) {
    std::string text = monitor.execute("help info");
    EXPECT_LT(text.find("info irq  -- "), text.find("info kvm  -- "));
    EXPECT_NE(text.find("info mtree [-f] -- show memory tree\n"), std::string::npos);
    EXPECT_EQ(monitor.execute("info"), text);
}

TEST_F(MonitorTest, greets_when_the_stream_opens_and_prompts_after_each_command) {
    stream.frontend->event(ui::CharEvent::opened);
    EXPECT_EQ(stream.written, "VMM 1.2.3 monitor - type 'help' for more information\r\n(qemu) ");
    stream.written.clear();
    stream.type("info name\r");
    EXPECT_EQ(stream.written, "info name\r\nit\r\n(qemu) ");
}

TEST_F(MonitorTest, on_a_mux_it_greets_with_the_first_focus_only) {
    stream.frontend->event(ui::CharEvent::focus_gained);
    stream.frontend->event(ui::CharEvent::focus_lost);
    stream.frontend->event(ui::CharEvent::focus_gained);
    EXPECT_EQ(stream.written, "VMM 1.2.3 monitor - type 'help' for more information\r\n(qemu) \r\n(qemu) ");
}

TEST_F(MonitorTest, a_slow_reader_holds_commands_back_and_loses_no_output) {
    stream.frontend->event(ui::CharEvent::opened);
    stream.room = 0;
    std::string line = "xp/4096xb 0\r";
    std::size_t taken = 0;
    for (int i = 0; i < 10; ++i) taken += stream.type(line);
    EXPECT_LT(taken, 10 * line.size());
    stream.room = SIZE_MAX;
    stream.frontend->writable();
    EXPECT_TRUE(stream.written.ends_with("(qemu) ") || stream.written.ends_with('x')) << stream.written.size();
    EXPECT_GT(stream.written.size(), Monitor::output_limit);
}

TEST_F(MonitorTest, tab_completes_commands_and_topics) {
    stream.type("system_p\t");
    EXPECT_TRUE(stream.written.ends_with("system_powerdown "));
    stream.type("\x15inf\tstat\t\r");
    EXPECT_NE(stream.written.find("VM status: running"), std::string::npos);
    stream.written.clear();
    stream.type("system_\t");
    EXPECT_NE(stream.written.find("system_powerdown\r\nsystem_reset\r\n(qemu) system_"), std::string::npos);
}

TEST_F(MonitorTest, hostile_lines_are_survived) {
    std::string deep = "p " + std::string(100000, '(');
    EXPECT_EQ(monitor.execute(deep).substr(0, 19), "expression too deep");
    EXPECT_FALSE(monitor.execute("xp/99999999999999999999b 0").empty());
    for (int c = 0; c < 256; ++c) stream.type(std::string(3, char(c)));
    stream.type(std::string(100000, 'a'));
}
