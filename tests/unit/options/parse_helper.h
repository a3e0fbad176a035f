// A small offering and a one-line way to parse, for the tests of the command line.
#pragma once
#include "vmm/options/options.h"

#include <string>
#include <vector>

namespace vmm::test {

inline Offering sample_offering() {
    Offering offering;
    offering.version = "1.2.3";
    offering.architectures = {"x86_64", "i386"};
    offering.machines = {
        {.name = "pc",
         .description = "Standard PC (i440FX + PIIX, 1996)",
         .alias_of = "pc-i440fx-7.2",
         .properties = {}},
        {.name = "pc-i440fx-7.2",
         .description = "Standard PC (i440FX + PIIX, 1996)",
         .alias_of = {},
         .is_default = true,
         .max_cpus = 255,
         .properties = {{"acpi", "OnOffAuto", "Enable ACPI"}, {"hpet", "bool", ""}, {"graphics", "bool", ""}}},
    };
    offering.accels = {"tcg", "kvm"};
    offering.cpu_models = {"qemu64", "kvm64", "max", "host"};
    offering.cpu_help = "Available CPUs:\n";
    offering.devices = {
        {.name = "isa-debug-exit",
         .category = "Misc",
         .bus = "ISA",
         .alias = {},
         .description = {},
         .properties = {{"iobase", "uint32", ""}, {"iosize", "uint32", ""}}},
        {.name = "pc-testdev", .category = "Misc", .bus = "ISA", .alias = {}, .description = {}, .properties = {}}};
    offering.missing_devices = {"usb-", "e1000"};
    return offering;
}

inline Result<CommandLine> parse(std::vector<char const*> words, Offering const& offering = sample_offering()) {
    words.insert(words.begin(), "/usr/bin/vmm");
    return parse_command_line(words, offering);
}

// The error's text, or "no error".
inline std::string failure(std::vector<char const*> words, Offering const& offering = sample_offering()) {
    auto parsed = parse(std::move(words), offering);
    return parsed.ok() ? "no error" : parsed.error().message();
}

} // namespace vmm::test
