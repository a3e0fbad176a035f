// The texts of -help, -version and of the "help" arguments.
#include "vmm/options/table.h"

namespace vmm {

std::string version_text(Offering const& offering) {
    return fmt::format("VMM emulator version {}\n", offering.version);
}

std::string help_text(Parse const& parse) {
    std::string text = version_text(parse.offering);
    text += fmt::format("usage: {} [options] [disk_image]\n\n"
                        "'disk_image' is a raw hard disk image for IDE hard disk 0\n",
                        parse.config.program);
    for (OptionRow const& row : option_table()) {
        if (row.name.empty()) {
            text += fmt::format("\n{}\n", row.help);
            continue;
        }
        if (!row.handler || (row.needs && !(parse.offering.built.*row.needs))) continue; // not built: not offered
        std::string left = fmt::format("-{} {}", row.name, row.arguments);
        if (left.size() < 16)
            text += fmt::format("{:<16}{}\n", left, row.help);
        else
            text += fmt::format("{}\n{:16}{}\n", left, "", row.help);
    }
    text += "\nWith -nographic or -serial mon:stdio, press Ctrl-a h for the keys of the console.\n";
    return text;
}

std::string machine_help(Offering const& offering) {
    std::string text = "Supported machines are:\n";
    for (MachineInfo const& machine : offering.machines) {
        text += fmt::format("{:<20} {}", machine.name, machine.description);
        if (!machine.alias_of.empty()) text += fmt::format(" (alias of {})", machine.alias_of);
        if (machine.is_default && machine.alias_of.empty()) text += " (default)";
        if (machine.deprecated) text += " (deprecated)";
        text += '\n';
    }
    return text;
}

std::string accel_help(Offering const& offering) {
    std::string text = "Accelerators supported in VMM binary:\n";
    for (std::string const& name : offering.accels) text += name + '\n';
    return text;
}

std::string device_help(Offering const& offering) {
    std::string text;
    for (char const* category : device_categories) {
        bool first = true;
        for (DeviceInfo const& device : offering.devices) {
            if (device.category != category) continue;
            if (first) text += fmt::format("{}{} devices:\n", text.empty() ? "" : "\n", category);
            first = false;
            text += fmt::format("name \"{}\"", device.name);
            if (!device.bus.empty()) text += fmt::format(", bus {}", device.bus);
            if (!device.alias.empty()) text += fmt::format(", alias \"{}\"", device.alias);
            if (!device.description.empty()) text += fmt::format(", desc \"{}\"", device.description);
            text += '\n';
        }
    }
    return text;
}

static std::string property_help(std::string_view name, std::vector<PropertyInfo> const& properties) {
    if (properties.empty()) return fmt::format("There are no options for {}.\n", name);
    std::string text = fmt::format("{} options:\n", name);
    for (PropertyInfo const& property : properties) {
        std::string left = fmt::format("  {}=<{}>", property.name, property.type);
        text += property.description.empty() ? left + '\n' : fmt::format("{:<24} - {}\n", left, property.description);
    }
    return text;
}

std::string device_property_help(DeviceInfo const& device) { return property_help(device.name, device.properties); }

std::string machine_property_help(MachineInfo const& machine) {
    return property_help(machine.name + "-machine", machine.properties);
}

} // namespace vmm
