// Command: one row of the monitor's table, and what its handler is given.
#pragma once
#include "monitor/machine_control.h"

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace vmm::monitor {

class Monitor;

enum class ArgumentKind : std::uint8_t {
    none,       // ends the list
    word,       // up to the next blank
    rest,       // the rest of the line, may be empty
    expression, // a number
    format,     // "/4xw", right after the command
};

struct Argument {
    ArgumentKind kind = ArgumentKind::none;
    std::string_view name = {};
    bool optional = false;
};

// How memory and numbers are shown; kept from one command to the next, as in QEMU.
struct Format {
    std::uint64_t count = 1;
    char format = 'x';
    unsigned size = 4;
};

struct Arguments {
    std::map<std::string_view, std::string> words;
    std::map<std::string_view, std::uint64_t> numbers;
    Format format;
};

// What a command works with.
struct Context {
    MachineControl& machine;
    Log& log;
    std::string const& version;
    std::string const& vm_name;
    std::size_t& cpu; // the one `x`, `print` and `info registers` look at
    Format& format;   // the last one used
    std::vector<std::string> const& history;
    std::string out; // what is shown
};

using CommandHandler = void (*)(Context&, Arguments const&);

struct Command {
    std::string_view name, alias;
    std::array<Argument, 3> arguments;
    std::string_view arguments_help, help;
    CommandHandler handler = nullptr; // null: the feature is not built yet
};

// commands.cpp: in alphabetical order.
std::span<Command const> command_table();
// The command called `name`, or its alias, or whose name alone begins so; null: none or several.
Command const* find_command(std::string_view name);
// "quit|q  -- quit the emulator".
std::string help_line(Command const& command);

// arguments.cpp: the argument list of a command line. Errors as QEMU words them, without the "Try help" line.
Result<Arguments> parse_arguments(Command const& command, std::string_view text, Context const& context);

// info.cpp
void info_command(Context& context, Arguments const& arguments);
// "info status  -- show …" for one topic, or for all of them when `name` is empty; "" when there is no such topic.
std::string info_help(Context const& context, std::string_view name);
std::vector<std::string> info_names(MachineControl const& machine);

// memory_dump.cpp
void dump_memory(Context& context, Format format, std::uint64_t address, Space space);
std::string format_number(std::uint64_t value, Format format);

} // namespace vmm::monitor
