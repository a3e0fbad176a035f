// -drive, -hda and its like, and a bare file name.
#include "vmm/options/keyval.h"
#include "vmm/options/table.h"

#include <algorithm>

namespace vmm {

namespace {

unsigned units_per_bus(std::string_view interface) { return interface == "ide" || interface == "floppy" ? 2 : 1; }

Result<void> add_drive(Parse& parse, DriveConfig drive, std::optional<unsigned> index) {
    auto& drives = parse.config.drives;
    unsigned units = units_per_bus(drive.interface);
    auto taken = [&](unsigned bus, unsigned unit) {
        return std::ranges::any_of(drives, [&](DriveConfig const& d) {
            return d.interface == drive.interface && d.bus == bus && d.unit == unit && d.interface != "none";
        });
    };
    if (!index) {
        index = 0;
        while (taken(*index / units, *index % units)) ++*index;
    }
    drive.bus = *index / units;
    drive.unit = *index % units;
    if (taken(drive.bus, drive.unit)) {
        std::string hint = drive.interface == "ide" && *index == 2 ? "; -hdc and -cdrom are the same slot" : "";
        return parse.at(error("drive with bus={}, unit={} (index={}) exists{}", drive.bus, drive.unit, *index, hint));
    }
    if (drive.id.empty())
        drive.id = drive.interface == "none" ? fmt::format("none{}", *index)
                                             : fmt::format("{}{}-{}{}", drive.interface, drive.bus,
                                                           drive.cdrom                   ? "cd"
                                                           : drive.interface == "floppy" ? "fd"
                                                                                         : "hd",
                                                           drive.unit);
    drive.origin = parse.spelled;
    drives.push_back(std::move(drive));
    return {};
}

} // namespace

Result<void> on_drive_slot(Parse& parse, OptionRow const& row, std::string_view argument) {
    DriveConfig drive;
    drive.file = argument;
    drive.interface = row.name.starts_with("fd") ? "floppy" : "ide";
    drive.cdrom = drive.readonly = row.name == "cdrom";
    unsigned index = drive.cdrom ? 2 : unsigned(row.name.back() - 'a');
    return add_drive(parse, std::move(drive), index);
}

Result<void> on_drive(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "file");
    DriveConfig drive;
    drive.interface = "ide";
    std::optional<unsigned> index, bus, unit;
    auto small_number = [&](std::string const& key, std::string const& value) -> Result<unsigned> {
        auto number = parse_number(key, value);
        if (!number) return parse.at(number.error());
        if (*number > 255) return parse.at(error("{} {} too big (max is 255)", key, value));
        return unsigned(*number);
    };
    for (auto const& [key, value] : list.items) {
        if (key == "file")
            drive.file = value;
        else if (key == "id")
            drive.id = value;
        else if (key == "format")
            drive.format = value;
        else if (key == "if")
            drive.interface = value;
        else if (key == "index")
            index = TRY(small_number(key, value));
        else if (key == "bus")
            bus = TRY(small_number(key, value));
        else if (key == "unit")
            unit = TRY(small_number(key, value));
        else if (key == "media") {
            if (value != "disk" && value != "cdrom") return parse.at(error("'{}' invalid media", value));
            drive.cdrom = value == "cdrom";
        } else if (key == "readonly" || key == "read-only" || key == "snapshot") {
            auto on = parse_bool(key, value);
            if (!on) return parse.at(on.error());
            (key == "snapshot" ? drive.snapshot : drive.readonly) = *on;
        } else if (key == "boot") {
            parse.warn(fmt::format("{}: boot= is old and has no effect; use -boot", parse.spelled));
        } else
            drive.properties.items.emplace_back(key, value);
    }
    bool known = false;
    for (std::string_view type : {"ide", "scsi", "floppy", "pflash", "mtd", "sd", "virtio", "none"})
        known |= type == drive.interface;
    if (!known) return parse.at(error("unsupported bus type '{}'", drive.interface));
    if (index && (bus || unit)) return parse.at(error("index cannot be used with bus and unit"));
    if (bus || unit) {
        unsigned units = units_per_bus(drive.interface);
        if (unit.value_or(0) >= units && units > 1)
            return parse.at(error("unit {} too big (max is {})", *unit, units - 1));
        index = bus.value_or(0) * units + unit.value_or(0);
    }
    drive.readonly |= drive.cdrom;
    return add_drive(parse, std::move(drive), index);
}

} // namespace vmm
