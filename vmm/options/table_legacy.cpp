// Spellings QEMU has dropped; each is accepted with one warning line that gives today's, then works (or says that the
// feature behind it is not built yet).
#include "vmm/options/keyval.h"
#include "vmm/options/table.h"

namespace vmm {

namespace {
// `help` is today's spelling.
constexpr OptionRow rows[] = {
    {"no-kvm", "", "-accel tcg", on_no_kvm},
    {"kernel-kqemu", "", "-enable-kvm", on_kqemu},
    {"enable-kqemu", "", "-enable-kvm", on_kqemu},
    {"no-kqemu", "", "-enable-kvm", on_kqemu},
    {"localtime", "", "-rtc base=localtime", on_localtime},
    {"startdate", "date", "-rtc base=DATE", on_localtime},
    {"rtc-td-hack", "", "-rtc driftfix=slew", on_localtime},
    {"nodefconfig", "", "-no-user-config", on_ignored},
    {"alt-grab", "", "-display sdl,grab-mod=lshift-lctrl-lalt", nullptr, "a graphical window"},
    {"ctrl-grab", "", "-display sdl,grab-mod=rctrl", nullptr, "a graphical window"},
    {"sdl", "", "-display sdl", nullptr, "a graphical window"},
    {"curses", "", "-display curses", nullptr, "a text-mode window"},
    {"no-frame", "", "-display sdl", nullptr, "a graphical window"},
    {"no-quit", "", "-display sdl,window-close=off", nullptr, "a graphical window"},
    {"show-cursor", "", "-display sdl,show-cursor=on", nullptr, "a graphical window"},
    {"redir", "tcp:port:[guest]:port", "-nic user,hostfwd=tcp::PORT-:PORT", nullptr, "user networking"},
    {"tftp", "dir", "-nic user,tftp=DIR", nullptr, "user networking"},
    {"smb", "dir", "-nic user,smb=DIR", nullptr, "user networking"},
    {"bootp", "file", "-nic user,bootfile=FILE", nullptr, "user networking"},
    {"soundhw", "cards", "-device intel-hda -device hda-duplex", nullptr, "sound"},
    {"balloon", "virtio|none", "-device virtio-balloon", on_old_feature, "a memory balloon"},
    {"hdachs", "c,h,s", "-device ide-hd,cyls=C,heads=H,secs=S", nullptr, "disk geometry"},
};
} // namespace

std::span<OptionRow const> legacy_option_table() { return rows; }

Result<void> on_no_kvm(Parse& parse, OptionRow const& row, std::string_view) {
    parse.warn(fmt::format("-{} is old; use {}", row.name, row.help));
    parse.config.accels = {{"tcg", {}}};
    parse.accel_given = true;
    return {};
}

Result<void> on_kqemu(Parse& parse, OptionRow const& row, std::string_view) {
    parse.warn(fmt::format("-{}: kqemu is gone; use -enable-kvm", row.name));
    return {};
}

Result<void> on_localtime(Parse& parse, OptionRow const& row, std::string_view argument) {
    parse.warn(fmt::format("-{} is old; use {}", row.name, row.help));
    if (row.name == "rtc-td-hack") return on_rtc(parse, row, "driftfix=slew");
    return on_rtc(parse, row, row.name == "localtime" ? "base=localtime" : fmt::format("base={}", argument));
}

Result<void> on_old_feature(Parse& parse, OptionRow const& row, std::string_view argument) {
    if (argument != "none") return not_built(row, row.missing);
    parse.warn(fmt::format("-{} none is old; it is the default", row.name));
    return {};
}

} // namespace vmm
