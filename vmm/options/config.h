// Config: everything the user asked for on the command line, as plain data. Only vmm/options knows argv; a board, the
// engines and the user interface read this.
#pragma once
#include "vmm/options/char_config.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vmm {

// name=value pairs in the order given; a later one of the same name wins.
struct Properties {
    std::vector<std::pair<std::string, std::string>> items;
    // The last value of `name`, or null.
    std::string const* find(std::string_view name) const;
    bool has(std::string_view name) const { return find(name) != nullptr; }
};

// -machine. `type` is empty for the default machine; aliases are not resolved.
struct MachineConfig {
    std::string type;
    Properties properties; // without type= and accel=
};

// One -accel, in order of preference. Empty list: choose (DESIGN "Engine choice").
struct AccelConfig {
    std::string name; // "kvm" or "tcg"
    Properties properties;
};

// -cpu MODEL,+feature,-feature,feature=on|off,property=value. Empty model: the machine's default.
struct CpuConfig {
    std::string model;
    Properties properties; // features included: "+x" is x=on, "-x" is x=off
};

// -smp. Every member is final (derived ones filled in) and cpus <= maxcpus = sockets * cores * threads.
struct SmpConfig {
    unsigned cpus = 1, maxcpus = 1, sockets = 1, cores = 1, threads = 1;
};

// -boot. Letters are checked: a, b floppy, c disk, d CD-ROM, n-p network.
struct BootConfig {
    std::string order, once; // empty: machine's default
    bool menu = false, strict = false;
    std::string splash;
    std::uint32_t splash_time_ms = 0, reboot_timeout_ms = 0;
};

// -drive and its short forms (-hda, -cdrom, -fda, a bare file name).
struct DriveConfig {
    std::string origin;    // what the user wrote, for messages
    std::string id;        // "ide0-hd0" when not given
    std::string interface; // "ide", "floppy", "virtio", "none", "scsi", "pflash", "sd", "mtd"
    unsigned bus = 0, unit = 0;
    bool cdrom = false, readonly = false, snapshot = false;
    std::string file;      // empty: no medium
    std::string format;    // empty: probe
    Properties properties; // the rest, for the block layer
};

// -device DRIVER,id=…,property=…. The driver name is known and its properties exist (Offering).
struct DeviceConfig {
    std::string origin, driver, id;
    Properties properties; // without id
};

// -netdev / -nic / -net.
struct NetdevConfig {
    std::string origin, type, id;
    Properties properties;
};

// A monitor on a character backend.
struct MonitorConfig {
    std::string chardev;  // id in Config::chardevs
    bool control = false; // QMP instead of the human monitor
};

// -debugcon / isa-debugcon.
struct DebugconConfig {
    std::string chardev;
    std::uint16_t iobase = 0xe9;
};

// What a run does when the guest does something final (-action, -no-reboot, -no-shutdown).
enum class OnReboot : std::uint8_t { reset, shutdown };
enum class OnShutdown : std::uint8_t { poweroff, pause };
enum class OnPanic : std::uint8_t { pause, shutdown, exit_failure, none };

// -rtc.
struct RtcConfig {
    bool localtime = false;
    std::optional<std::int64_t> start_seconds; // fixed start, seconds since the epoch (UTC)
    std::string clock = "host";                // "host", "rt" or "vm"
    bool slew = false;                         // driftfix=slew: lost periodic interrupts are made up for
};

// -dfilter: guest addresses, both ends inclusive.
struct TraceRange {
    std::uint64_t first = 0, last = 0;
};

struct Config {
    std::string program; // basename of argv[0]: the prefix of every message
    MachineConfig machine;
    std::vector<AccelConfig> accels;
    CpuConfig cpu;
    SmpConfig smp;
    std::uint64_t memory_bytes = 128ull << 20; // -m
    bool memory_prealloc = false;

    std::string kernel, initrd, append; // empty: not given
    std::string bios;                   // empty: the machine's firmware, or none with a kernel
    std::vector<std::string> data_dirs; // -L, in order
    BootConfig boot;
    RtcConfig rtc;

    std::vector<DriveConfig> drives;
    bool snapshot = false; // -snapshot: writes go to temporary overlays
    std::vector<DeviceConfig> devices;
    std::vector<NetdevConfig> netdevs;
    bool no_default_network = false; // -nic none / -net none
    bool no_defaults = false;        // -nodefaults

    // Character backends by id; serial ports, monitors and the debug console refer to them. An empty id in `serials` is
    // a port with nothing behind it ("none": the port is not there).
    std::vector<CharConfig> chardevs;
    std::vector<std::string> serials;
    std::vector<MonitorConfig> monitors;
    std::optional<DebugconConfig> debugcon;
    char escape_key = 0x01; // -echr: the mux's prefix
    std::string display;    // "none", or a toolkit's name
    bool nographic = false;
    std::string vga; // empty: the machine's default
    std::string keyboard_layout;

    std::string name;         // -name
    std::string process_name; // -name process=
    std::string uuid;
    std::string pidfile;
    bool daemonize = false;
    bool start_paused = false; // -S
    std::optional<CharConfig> gdb;
    std::string loadvm;
    OnReboot on_reboot = OnReboot::reset;
    OnShutdown on_shutdown = OnShutdown::poweroff;
    OnPanic on_panic = OnPanic::shutdown;

    std::uint32_t trace_mask = 0; // bits of vmm::Trace
    std::string trace_file;       // -D; empty: standard error
    std::vector<TraceRange> trace_ranges;
    bool perf_map = false; // -perfmap: names of translated blocks in /tmp/perf-PID.map
    bool lockstep = false; // -accel tcg,lockstep=on: two engines checked against each other
};

} // namespace vmm
