// -device, -netdev, -nic, -net.
#include "vmm/base/text.h"
#include "vmm/options/keyval.h"
#include "vmm/options/table.h"

#include <algorithm>

namespace vmm {

namespace {
DeviceInfo const* find_device(Offering const& offering, std::string_view name) {
    for (DeviceInfo const& device : offering.devices)
        if (device.name == name || (!device.alias.empty() && device.alias == name)) return &device;
    return nullptr;
}
} // namespace

bool is_missing(std::vector<std::string> const& missing, std::string_view name) {
    return std::ranges::any_of(missing, [&](std::string const& known) {
        return known.ends_with('-') ? name.starts_with(known) : name == known;
    });
}

Result<void> on_device(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "driver");
    std::string const* driver = list.find("driver");
    if (!driver) return parse.at(error("Parameter 'driver' is missing"));
    if (is_help(*driver)) return parse.print(device_help(parse.offering)), Result<void>();
    DeviceInfo const* info = find_device(parse.offering, *driver);
    if (!info) {
        if (is_missing(parse.offering.missing_devices, *driver))
            return parse.at(error("the '{}' device is not built yet", *driver));
        std::vector<std::string_view> names;
        for (DeviceInfo const& device : parse.offering.devices) names.push_back(device.name);
        return parse.at(error("'{}' is not a valid device model name{}", *driver, did_you_mean(*driver, names)));
    }
    DeviceConfig device;
    device.origin = parse.spelled;
    device.driver = info->name;
    for (auto const& [key, value] : list.items) {
        if (key == "driver") continue;
        if (is_help(key)) return parse.print(device_property_help(*info)), Result<void>();
        if (key == "id") {
            device.id = value;
            continue;
        }
        if (std::ranges::find(info->properties, key, &PropertyInfo::name) == info->properties.end()) {
            std::vector<std::string_view> names;
            for (auto const& property : info->properties) names.push_back(property.name);
            return parse.at(error("Property '{}.{}' not found{}", info->name, key, did_you_mean(key, names)));
        }
        device.properties.items.emplace_back(key, value);
    }
    if (!device.id.empty() &&
        std::ranges::find(parse.config.devices, device.id, &DeviceConfig::id) != parse.config.devices.end())
        return parse.at(error("Duplicate device ID '{}'", device.id));
    parse.config.devices.push_back(std::move(device));
    return {};
}

Result<void> on_netdev(Parse& parse, OptionRow const& row, std::string_view argument) {
    if (is_help(argument)) return parse.print("Available netdev backend types:\nuser\n"), Result<void>();
    Properties list = parse_list(argument, "type");
    NetdevConfig netdev;
    netdev.origin = parse.spelled;
    for (auto const& [key, value] : list.items) {
        if (key == "type")
            netdev.type = value;
        else if (key == "id")
            netdev.id = value;
        else
            netdev.properties.items.emplace_back(key, value);
    }
    if (netdev.type == "none" && row.name != "netdev") return parse.config.no_default_network = true, Result<void>();
    bool known = false;
    for (std::string_view type : {"user", "tap", "socket", "stream", "dgram", "bridge", "vhost-user", "vde", "l2tpv3",
                                  "hubport", "vhost-vdpa", "nic"})
        known |= type == netdev.type && (type != "nic" || row.name == "net");
    if (!known) return parse.at(error("Parameter 'type' does not accept value '{}'", netdev.type));
    if (row.name == "netdev" && netdev.id.empty()) return parse.at(error("Parameter 'id' is missing"));
    if (!parse.offering.built.network)
        return not_built(row, netdev.type == "user" || netdev.type == "nic" ? "user networking" : "networking");
    parse.config.netdevs.push_back(std::move(netdev));
    return {};
}

} // namespace vmm
