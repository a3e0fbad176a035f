// -boot, -kernel and its companions, -bios, -L, -rtc.
#include "vmm/options/keyval.h"
#include "vmm/options/table.h"

#include <time.h>

#include <cctype>

namespace vmm {

namespace {
// Boot letters, each at most once.
Result<void> check_boot_letters(std::string_view letters) {
    std::string seen;
    for (char c : letters) {
        if (c < 'a' || c > 'p' || (c > 'd' && c < 'n'))
            return error("Invalid boot device '{}' (a, b: floppy, c: hard disk, d: CD-ROM, n-p: network)", c);
        if (seen.find(c) != std::string::npos) return error("Boot device '{}' was given twice", c);
        seen += c;
    }
    return {};
}
} // namespace

Result<void> on_boot(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "order");
    TRY(check_known(list, {"order", "once", "menu", "strict", "splash", "splash-time", "reboot-timeout"}, "boot"));
    BootConfig& boot = parse.config.boot;
    for (auto [key, to] : {std::pair{"order", &boot.order}, std::pair{"once", &boot.once}})
        if (std::string const* letters = list.find(key)) {
            TRY(check_boot_letters(*letters));
            *to = *letters;
        }
    boot.menu = TRY(bool_of(list, "menu", boot.menu));
    boot.strict = TRY(bool_of(list, "strict", boot.strict));
    if (std::string const* splash = list.find("splash")) boot.splash = *splash;
    for (auto [key, to] :
         {std::pair{"splash-time", &boot.splash_time_ms}, std::pair{"reboot-timeout", &boot.reboot_timeout_ms}})
        if (std::string const* text = list.find(key)) {
            std::uint64_t ms = TRY(parse_number(key, *text));
            if (ms > 0xffff) return error("{} must be at most 65535 ms", key);
            *to = std::uint32_t(ms);
        }
    return {};
}

Result<void> on_boot_file(Parse& parse, OptionRow const& row, std::string_view argument) {
    Config& config = parse.config;
    if (row.name == "kernel")
        config.kernel = argument;
    else if (row.name == "initrd")
        config.initrd = argument, parse.initrd_given = true;
    else if (row.name == "append")
        config.append = argument, parse.append_given = true;
    else
        config.bios = argument;
    return {};
}

Result<void> on_data_dir(Parse& parse, OptionRow const&, std::string_view argument) {
    if (is_help(argument)) return parse.print("/usr/share/qemu\n/usr/share/seabios\n"), Result<void>();
    parse.config.data_dirs.emplace_back(argument);
    return {};
}

Result<void> on_rtc(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument);
    if (auto known = check_known(list, {"base", "clock", "driftfix"}); !known) return parse.at(known.error());
    RtcConfig& rtc = parse.config.rtc;
    if (std::string const* base = list.find("base")) {
        rtc.localtime = *base == "localtime";
        rtc.start_seconds.reset();
        if (*base != "utc" && *base != "localtime") {
            tm when{};
            char const* end = strptime(base->c_str(), "%Y-%m-%dT%H:%M:%S", &when);
            if (!end) when = {}, end = strptime(base->c_str(), "%Y-%m-%d", &when);
            if (!end || *end != '\0')
                return error("-rtc base={}: invalid datetime format\nvalid formats: '2006-06-17T16:01:21' or "
                             "'2006-06-17', or utc or localtime",
                             *base);
            rtc.start_seconds = timegm(&when);
        }
    }
    if (std::string const* clock = list.find("clock")) {
        if (*clock != "host" && *clock != "rt" && *clock != "vm")
            return parse.at(error("invalid option value '{}'; clock is host, rt or vm", *clock));
        rtc.clock = *clock;
    }
    if (std::string const* fix = list.find("driftfix")) {
        if (*fix != "none" && *fix != "slew")
            return parse.at(error("invalid option value '{}'; driftfix is none or slew", *fix));
        rtc.slew = *fix == "slew";
    }
    return {};
}

} // namespace vmm
