#include "block/tools/io/report.h"

#include <fmt/core.h>

#include <array>
#include <cmath>
#include <cstdio>

namespace vmm::block {

std::string io_size(double bytes) {
    static constexpr std::array<std::string_view, 7> units = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    std::size_t unit = 0;
    for (; bytes >= 1024 && unit + 1 < units.size(); ++unit) bytes /= 1024;
    if (unit == 0 && bytes != std::floor(bytes)) return fmt::format("{:.6g} {}", bytes, units[0]);
    std::string number = fmt::format("{:.3f}", bytes);
    if (number.ends_with(".000")) number.resize(number.size() - 4);
    return fmt::format("{} {}", number, units[unit]);
}

namespace {

// "00.04" seconds, or "1:23:51.96" beyond a minute; `full` always has hours and minutes.
std::string elapsed_text(double seconds, bool full) {
    auto centis = std::uint64_t(seconds * 100);
    std::uint64_t whole = centis / 100, hours = whole / 3600, minutes = whole / 60 % 60;
    if (full || hours || minutes) return fmt::format("{}:{:02}:{:02}.{:02}", hours, minutes, whole % 60, centis % 100);
    return fmt::format("{:02}.{:02}", whole % 60, centis % 100);
}

} // namespace

void print_result(IoResult const& r, bool machine_readable) {
    double seconds = r.seconds > 0 ? r.seconds : 1e-9;
    double rate = double(r.done) / seconds, operations = double(r.operations) / seconds;
    if (machine_readable) {
        std::printf("%s", fmt::format("{},{},{},{:.3f},{:.3f}\n", r.done, r.operations, elapsed_text(seconds, true),
                                      rate, operations)
                              .c_str());
        return;
    }
    std::printf("%s", fmt::format("{} {}/{} bytes at offset {}\n{}, {} ops; {} {}({}/sec and {:.4f} ops/sec)\n", r.verb,
                                  r.done, r.asked, r.offset, io_size(double(r.done)), r.operations,
                                  elapsed_text(seconds, false), seconds < 60 ? "sec " : "", io_size(rate), operations)
                          .c_str());
}

void print_dump(ConstBytes bytes, std::uint64_t offset) {
    constexpr std::size_t columns = 16;
    for (std::size_t at = 0; at < bytes.size(); at += columns) {
        ConstBytes row = bytes.subspan(at, std::min(columns, bytes.size() - at));
        std::string hex, text;
        for (std::uint8_t b : row) {
            hex += fmt::format("{:02x} ", b);
            text += b >= 0x20 && b < 0x7f ? char(b) : '.';
        }
        std::printf("%s", fmt::format("{:08x}:  {} {}\n", offset + at, hex, text).c_str());
    }
}

} // namespace vmm::block
