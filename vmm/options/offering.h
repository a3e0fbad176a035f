// Offering: what this build has, as the command line needs to know it: names to accept, lists to print, features that
// do not exist yet. main() fills it in from the boards, CPU models and devices linked into the program.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace vmm {

struct PropertyInfo {
    std::string name, type, description; // "iobase", "uint32", ""
};

struct MachineInfo {
    std::string name, description;
    std::string alias_of;
    bool is_default = false, deprecated = false;
    unsigned max_cpus = 1;
    std::vector<PropertyInfo> properties; // what -machine NAME,prop=… accepts
};

// A property that exists elsewhere. Here only `accepted` can be said of it, which is how things are.
struct MissingProperty {
    std::string name, accepted;
    std::string feature; // "USB" in "USB is not built yet"
};

struct DeviceInfo {
    std::string name;
    std::string category; // one of device_categories
    std::string bus;      // "ISA", "PCI"; empty: none
    std::string alias, description;
    std::vector<PropertyInfo> properties;
};

// The order of "-device help".
inline constexpr char const* device_categories[] = {
    "Controller/Bridge/Hub", "USB", "Storage", "Network", "Input", "Display", "Sound", "Misc", "CPU", "Watchdog",
    "Uncategorized"};

// Parts of the program that -options lead to. One that is false makes its options stop with "-x: … is not built yet".
struct BuiltFeatures {
    bool disks = false;
    bool network = false;
    bool display = false; // a graphical window
    bool firmware = false;
    bool usb = false;
    bool sound = false;
    bool snapshots = false; // -loadvm
    bool gdb = false;
    bool qmp = false;
};

struct Offering {
    std::string version;                    // "0.1.0"
    std::vector<std::string> architectures; // of guests, as program names spell them: "x86_64"
    std::vector<MachineInfo> machines;      // in the order "-machine help" prints
    std::vector<std::string> accels;        // "tcg", "kvm"
    std::vector<std::string> cpu_models;
    std::string cpu_help; // the whole text of "-cpu help"
    std::vector<DeviceInfo> devices;
    // Names of devices that exist elsewhere and do not here yet; "usb-" stands for all that begin so.
    std::vector<std::string> missing_devices;
    // The same for machines, and what could be said of the ones that are here.
    std::vector<std::string> missing_machines;
    std::vector<MissingProperty> missing_machine_properties;
    // Memory and swap of the host: more than this for a guest cannot work. 0: unknown, unchecked.
    std::uint64_t host_memory_bytes = 0;
    BuiltFeatures built;
};

} // namespace vmm
