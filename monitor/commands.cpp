// The monitor's commands.
#include "monitor/command.h"
#include "vmm/options/trace_items.h"

#include <algorithm>

namespace vmm::monitor {

namespace {

using K = ArgumentKind;

void help_command(Context& c, Arguments const& arguments) {
    std::string const& name = arguments.words.at("cmd");
    if (name.empty()) {
        for (Command const& command : command_table())
            if (command.handler) c.out += help_line(command);
        return;
    }
    if (name == "info") {
        c.out += info_help(c, {});
        return;
    }
    std::string text;
    if (name.starts_with("info "))
        text = info_help(c, std::string_view(name).substr(5));
    else if (Command const* command = find_command(name))
        text = help_line(*command);
    c.out += text.empty() ? fmt::format("unknown command: '{}'\n", name) : text;
}

void log_command(Context& c, Arguments const& arguments) {
    std::string const& items = arguments.words.at("items");
    auto mask = parse_trace_items(items);
    if (mask) return c.log.set_trace_mask(*mask);
    std::string text = trace_help();
    std::size_t first_line = text.find('\n') + 1;
    c.out += text.substr(0, first_line) + fmt::format("{:<15} remove all logs\n", "none") + text.substr(first_line);
}

void logfile_command(Context& c, Arguments const& arguments) {
    std::string const& path = arguments.words.at("filename");
    if (!c.log.set_trace_file(path)) c.out += fmt::format("Error: Could not open '{}'\n", path);
}

void cpu_command(Context& c, Arguments const& arguments) {
    std::uint64_t index = arguments.numbers.at("index");
    if (index >= c.machine.cpu_count())
        c.out += "invalid CPU index\n";
    else
        c.cpu = std::size_t(index);
}

void print_command(Context& c, Arguments const& arguments) {
    c.format = arguments.format;
    c.out += format_number(arguments.numbers.at("val"), arguments.format) + "\n";
}

void dump_command(Context& c, Arguments const& arguments, Space space) {
    c.format = arguments.format;
    dump_memory(c, arguments.format, arguments.numbers.at("addr"), space);
}

constexpr Command rows[] = {
    {"balloon", "", {}, "target", "request VM to change its memory allocation (in MB)"},
    {"block_resize", "", {}, "device size", "resize a block image"},
    {"change", "", {}, "device filename", "change a removable medium"},
    {"commit", "", {}, "device|all", "commit changes to the disk images"},
    {"cont",
     "c",
     {},
     "",
     "resume emulation",
     [](Context& c, Arguments const&) {
         if (auto done = c.machine.cont(); !done) c.out += fmt::format("Error: {}\n", done.error().message());
     }},
    {"cpu", "", {{{K::expression, "index"}}}, "index", "set the default CPU", cpu_command},
    {"delvm", "", {}, "tag", "delete a VM snapshot"},
    {"device_add", "", {}, "driver[,prop=value][,...]", "add device"},
    {"device_del", "", {}, "device", "remove device"},
    {"drive_add", "", {}, "drive", "add a drive"},
    {"eject", "", {}, "device", "eject a removable medium"},
    {"gdbserver", "", {}, "device", "start the gdb server"},
    {"help", "?", {{{K::rest, "cmd"}}}, "[cmd]", "show the help", help_command},
    {"hostfwd_add", "", {}, "rule", "redirect TCP or UDP connections from host to guest"},
    {"hostfwd_remove", "", {}, "rule", "remove a redirection"},
    {"info",
     "",
     {{{K::rest, "item"}}},
     "[subcommand]",
     "show various information about the system state",
     info_command},
    {"loadvm", "", {}, "tag", "restore a VM snapshot"},
    {"log", "", {{{K::word, "items"}}}, "item1[,...]", "activate logging of the specified items", log_command},
    {"logfile", "", {{{K::word, "filename"}}}, "filename", "output logs to 'filename'", logfile_command},
    {"migrate", "", {}, "uri", "migrate the VM"},
    {"mouse_move", "", {}, "dx dy", "send mouse move events"},
    {"nmi", "", {}, "", "inject an NMI", [](Context& c, Arguments const&) { c.machine.inject_nmi(); }},
    {"print",
     "p",
     {{{K::format, "fmt"}, {K::expression, "val"}}},
     "/fmt expr",
     "print expression value (use $reg for CPU register access)",
     print_command},
    {"quit", "q", {}, "", "quit the emulator", [](Context& c, Arguments const&) { c.machine.quit(); }},
    {"savevm", "", {}, "tag", "save a VM snapshot"},
    {"screendump", "", {}, "filename", "save the screen into an image"},
    {"sendkey", "", {}, "keys", "send keys to the VM"},
    {"stop", "s", {}, "", "stop emulation", [](Context& c, Arguments const&) { c.machine.stop(); }},
    {"system_powerdown",
     "",
     {},
     "",
     "send system power down event",
     [](Context& c, Arguments const&) { c.machine.powerdown(); }},
    {"system_reset", "", {}, "", "reset the system", [](Context& c, Arguments const&) { c.machine.reset(); }},
    {"usb_add", "", {}, "device", "add a USB device"},
    {"usb_del", "", {}, "device", "remove a USB device"},
    {"x",
     "",
     {{{K::format, "fmt"}, {K::expression, "addr"}}},
     "/fmt addr",
     "virtual memory dump starting at 'addr'",
     [](Context& c, Arguments const& a) { dump_command(c, a, Space::virtual_of_cpu); }},
    {"xp",
     "",
     {{{K::format, "fmt"}, {K::expression, "addr"}}},
     "/fmt addr",
     "physical memory dump starting at 'addr'",
     [](Context& c, Arguments const& a) { dump_command(c, a, Space::physical); }},
};

} // namespace

std::span<Command const> command_table() { return rows; }

Command const* find_command(std::string_view name) {
    Command const* found = nullptr;
    unsigned matches = 0;
    for (Command const& command : rows) {
        if (command.name == name || (!command.alias.empty() && command.alias == name)) return &command;
        if (!name.empty() && command.name.starts_with(name)) found = &command, ++matches;
    }
    return matches == 1 ? found : nullptr;
}

std::string help_line(Command const& command) {
    return fmt::format("{}{}{} {} -- {}{}\n", command.name, command.alias.empty() ? "" : "|", command.alias,
                       command.arguments_help, command.help, command.handler ? "" : " (not built yet)");
}

} // namespace vmm::monitor
