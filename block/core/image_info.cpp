#include "block/core/image_info.h"

#include <array>
#include <ctime>

namespace vmm::block {

std::string human_size(std::uint64_t bytes) {
    static constexpr std::array<std::string_view, 7> units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = double(bytes);
    std::size_t unit = 0;
    for (; value >= 1000 && unit + 1 < units.size(); ++unit) value /= 1024; // 1000 B is already 0.977 KiB
    return fmt::format("{:.3g} {}", value, units[unit]);
}

namespace {

std::string snapshot_clock(std::uint64_t nanoseconds) {
    std::uint64_t ms = nanoseconds / 1'000'000;
    return fmt::format("{:02}:{:02}:{:02}.{:03}", ms / 3'600'000, ms / 60'000 % 60, ms / 1000 % 60, ms % 1000);
}

Value snapshot_value(SnapshotInfo const& s) {
    Value v;
    if (s.icount) v.set("icount", *s.icount);
    v.set("vm-clock-nsec", s.vm_clock_nanoseconds % 1'000'000'000).set("name", s.name);
    v.set("date-sec", s.date_seconds).set("date-nsec", s.date_nanoseconds);
    v.set("vm-clock-sec", s.vm_clock_nanoseconds / 1'000'000'000).set("id", s.id);
    v.set("vm-state-size", s.vm_state_size_bytes);
    return v;
}

} // namespace

std::string snapshot_table(std::vector<SnapshotInfo> const& snapshots) {
    std::string out =
        fmt::format("{:<10}{:<17}{:>8}{:>20}{:>13}{:>11}\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (SnapshotInfo const& s : snapshots) {
        std::tm local{};
        std::time_t when = s.date_seconds;
        localtime_r(&when, &local);
        std::array<char, 32> date{};
        std::strftime(date.data(), date.size(), "%Y-%m-%d %H:%M:%S", &local);
        out +=
            fmt::format("{:<9} {:<16} {:>8}{:>20}{:>13}{:>11}\n", s.id, s.name, human_size(s.vm_state_size_bytes),
                        date.data(), snapshot_clock(s.vm_clock_nanoseconds), s.icount ? std::to_string(*s.icount) : "");
    }
    return out;
}

Task<Result<ImageInfo>> collect_info(Image& image) {
    ImageInfo info;
    info.filename = image.filename();
    info.format = std::string(image.format_name());
    info.virtual_size_bytes = image.size_bytes();
    if (auto size = image.allocated_size_bytes(); size.ok()) info.actual_size_bytes = *size;
    info.backing = image.backing_reference();
    info.full_backing_filename = image.full_backing_filename();
    Capabilities can = image.capabilities();
    if (can.info) {
        CO_TRY_ASSIGN(info.details, co_await can.info->format_info());
    }
    if (can.snapshots) info.snapshots = can.snapshots->list();
    co_return info;
}

std::string info_text(ImageInfo const& info) {
    std::string out =
        fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n", info.filename,
                    info.format, human_size(info.virtual_size_bytes), info.virtual_size_bytes,
                    info.actual_size_bytes ? human_size(*info.actual_size_bytes) : "unavailable");
    FormatInfo const& details = info.details;
    if (details.encrypted) out += "encrypted: yes\n";
    if (details.cluster_size_bytes) out += fmt::format("cluster_size: {}\n", *details.cluster_size_bytes);
    if (details.dirty.value_or(false)) out += "cleanly shut down: no\n";
    if (!info.backing.filename.empty()) {
        out += "backing file: " + info.backing.filename;
        if (info.full_backing_filename != info.backing.filename && !info.full_backing_filename.empty())
            out += fmt::format(" (actual path: {})", info.full_backing_filename);
        out += "\n";
        if (!info.backing.format.empty()) out += fmt::format("backing file format: {}\n", info.backing.format);
    }
    if (!info.snapshots.empty()) out += "Snapshot list:\n" + snapshot_table(info.snapshots);
    if (!details.specific_type.empty() && details.specific_data.is_dict())
        out += "Format specific information:\n" + details.specific_data.text(1);
    return out;
}

Value info_value(ImageInfo const& info) {
    FormatInfo const& details = info.details;
    Value v;
    if (!info.snapshots.empty()) {
        Value list = Value::list();
        for (SnapshotInfo const& s : info.snapshots) list.add(snapshot_value(s));
        v.set("snapshots", std::move(list));
    }
    if (!info.backing.format.empty()) v.set("backing-filename-format", info.backing.format);
    v.set("virtual-size", info.virtual_size_bytes).set("filename", info.filename);
    if (details.cluster_size_bytes) v.set("cluster-size", *details.cluster_size_bytes);
    v.set("format", info.format);
    if (info.actual_size_bytes) v.set("actual-size", *info.actual_size_bytes);
    if (details.compressed) v.set("compressed", true);
    if (!details.specific_type.empty()) {
        Value specific;
        specific.set("type", details.specific_type).set("data", details.specific_data);
        v.set("format-specific", std::move(specific));
    }
    if (details.encrypted) v.set("encrypted", true);
    if (!info.full_backing_filename.empty() && !info.backing.filename.empty())
        v.set("full-backing-filename", info.full_backing_filename);
    if (!info.backing.filename.empty()) v.set("backing-filename", info.backing.filename);
    v.set("dirty-flag", details.dirty.value_or(false));
    return v;
}

} // namespace vmm::block
