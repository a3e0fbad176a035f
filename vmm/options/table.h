// The table of options: one row each, and what handlers work on.
#pragma once
#include "vmm/options/options.h"

#include <span>
#include <string>
#include <string_view>

namespace vmm {

// State while parsing one command line.
struct Parse {
    Offering const& offering;
    CommandLine& out;
    Config& config;
    std::string spelled; // the option being handled as the user wrote it: "-m foo"; the start of most messages
    // What was said, for defaults and checks at the end.
    bool append_given = false, initrd_given = false, display_given = false;
    bool serial_given = false, monitor_given = false;
    bool machine_accel_given = false, accel_given = false;
    Properties smp;
    bool smp_given = false;

    // `e` with "-m foo: " in front.
    Error at(Error const& e) const { return e.with_prefix(spelled); }
    void warn(std::string text) { out.warnings.push_back(std::move(text)); }
    void print(std::string text) { out.print_and_exit = std::move(text); }
};

struct OptionRow;
using OptionHandler = Result<void> (*)(Parse&, OptionRow const&, std::string_view argument);

struct OptionRow {
    std::string_view name;      // without dashes
    std::string_view arguments; // for -help; empty: takes none
    std::string_view help;
    OptionHandler handler = nullptr; // null: recognised, but `missing` ("sound") is not built yet
    std::string_view missing = {};
    bool BuiltFeatures::*needs = nullptr; // not null: `missing` is reported unless this flag of the offering is set
};

// Current options, grouped as -help prints them; a row whose `handler` and `missing` are empty is a section heading.
std::span<OptionRow const> option_table();
// Spellings QEMU has dropped: accepted with one warning line each (the handler gives it).
std::span<OptionRow const> legacy_option_table();
// The row of `name` in either table, or null.
OptionRow const* find_option(std::string_view name);

// "-netdev: user networking is not built yet".
Error not_built(OptionRow const& row, std::string_view what);

// Whether `name` is on a list of things that exist elsewhere ("usb-" stands for all that begin so).
bool is_missing(std::vector<std::string> const& missing, std::string_view name);

// Handlers, by the file that holds them.
#define VMM_OPTION_HANDLER(name) Result<void> name(Parse&, OptionRow const&, std::string_view)
// handlers_machine.cpp
VMM_OPTION_HANDLER(on_machine);
VMM_OPTION_HANDLER(on_accel);
VMM_OPTION_HANDLER(on_enable_kvm);
VMM_OPTION_HANDLER(on_cpu);
VMM_OPTION_HANDLER(on_smp);
VMM_OPTION_HANDLER(on_memory);
VMM_OPTION_HANDLER(on_mem_prealloc);
VMM_OPTION_HANDLER(on_machine_property_off);
// handlers_boot.cpp
VMM_OPTION_HANDLER(on_boot);
VMM_OPTION_HANDLER(on_boot_file);
VMM_OPTION_HANDLER(on_data_dir);
VMM_OPTION_HANDLER(on_rtc);
// handlers_run.cpp
VMM_OPTION_HANDLER(on_name);
VMM_OPTION_HANDLER(on_text);
VMM_OPTION_HANDLER(on_flag);
VMM_OPTION_HANDLER(on_action);
VMM_OPTION_HANDLER(on_trace);
VMM_OPTION_HANDLER(on_trace_filter);
VMM_OPTION_HANDLER(on_gdb);
VMM_OPTION_HANDLER(on_ignored);
VMM_OPTION_HANDLER(on_help);
VMM_OPTION_HANDLER(on_version);
VMM_OPTION_HANDLER(on_display);
VMM_OPTION_HANDLER(on_vga);
VMM_OPTION_HANDLER(on_escape_key);
// handlers_char.cpp
VMM_OPTION_HANDLER(on_chardev);
VMM_OPTION_HANDLER(on_serial);
VMM_OPTION_HANDLER(on_parallel);
VMM_OPTION_HANDLER(on_monitor);
VMM_OPTION_HANDLER(on_mon);
VMM_OPTION_HANDLER(on_debugcon);
// handlers_drive.cpp
VMM_OPTION_HANDLER(on_drive);
VMM_OPTION_HANDLER(on_drive_slot);
// handlers_device.cpp
VMM_OPTION_HANDLER(on_device);
VMM_OPTION_HANDLER(on_netdev);
// table_legacy.cpp
VMM_OPTION_HANDLER(on_no_kvm);
VMM_OPTION_HANDLER(on_kqemu);
VMM_OPTION_HANDLER(on_localtime);
VMM_OPTION_HANDLER(on_old_feature);
#undef VMM_OPTION_HANDLER

// handlers_char.cpp: the defaults of serial port and monitor, and checks that need the whole line.
Result<void> finish_characters(Parse& parse);
// handlers_machine.cpp: topology and memory against the machine.
Result<void> finish_machine(Parse& parse);
// help.cpp
std::string help_text(Parse const& parse);
std::string version_text(Offering const& offering);
std::string machine_help(Offering const& offering);
std::string accel_help(Offering const& offering);
std::string device_help(Offering const& offering);
std::string device_property_help(DeviceInfo const& device);
std::string machine_property_help(MachineInfo const& machine);

} // namespace vmm
