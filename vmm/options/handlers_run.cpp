// How the run itself goes: names, logs, what ends it; help and display.
#include "vmm/base/text.h"
#include "vmm/options/char_spec.h"
#include "vmm/options/keyval.h"
#include "vmm/options/table.h"
#include "vmm/options/trace_items.h"

#include <algorithm>

namespace vmm {

Result<void> on_help(Parse& parse, OptionRow const&, std::string_view) {
    parse.print(help_text(parse));
    return {};
}

Result<void> on_version(Parse& parse, OptionRow const&, std::string_view) {
    parse.print(version_text(parse.offering));
    return {};
}

Result<void> on_name(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "guest");
    if (auto known = check_known(list, {"guest", "process", "debug-threads"}); !known) return parse.at(known.error());
    if (std::string const* guest = list.find("guest")) parse.config.name = *guest;
    if (std::string const* process = list.find("process")) parse.config.process_name = *process;
    return {};
}

Result<void> on_text(Parse& parse, OptionRow const& row, std::string_view argument) {
    Config& config = parse.config;
    if (row.name == "D")
        config.trace_file = argument;
    else if (row.name == "k")
        config.keyboard_layout = argument;
    else if (row.name == "pidfile")
        config.pidfile = argument;
    else if (row.name == "loadvm")
        config.loadvm = argument;
    else if (row.name == "uuid") {
        bool right = argument.size() == 36;
        for (std::size_t i = 0; right && i < argument.size(); ++i) {
            bool dash = i == 8 || i == 13 || i == 18 || i == 23;
            right = dash ? argument[i] == '-' : std::isxdigit(static_cast<unsigned char>(argument[i])) != 0;
        }
        if (!right) return parse.at(error("failed to parse UUID string: wrong format"));
        config.uuid = argument;
    }
    return {};
}

Result<void> on_flag(Parse& parse, OptionRow const& row, std::string_view) {
    Config& config = parse.config;
    if (row.name == "S")
        config.start_paused = true;
    else if (row.name == "nodefaults")
        config.no_defaults = true;
    else if (row.name == "snapshot")
        config.snapshot = true;
    else if (row.name == "nographic")
        config.nographic = true, config.display = "none";
    else if (row.name == "no-reboot")
        config.on_reboot = OnReboot::shutdown;
    else if (row.name == "no-shutdown")
        config.on_shutdown = OnShutdown::pause;
    else if (row.name == "daemonize")
        config.daemonize = true;
    else if (row.name == "perfmap")
        config.perf_map = true;
    return {};
}

Result<void> on_ignored(Parse&, OptionRow const&, std::string_view) { return {}; }

namespace {
// Picks the value of one -action key.
template <class E>
Result<void> pick(Properties const& list, char const* key, E& to,
                  std::initializer_list<std::pair<std::string_view, E>> values) {
    std::string const* text = list.find(key);
    if (!text) return {};
    for (auto const& [name, value] : values)
        if (*text == name) return to = value, Result<void>();
    return error("Parameter '{}' does not accept value '{}'", key, *text);
}
} // namespace

Result<void> on_action(Parse& parse, OptionRow const&, std::string_view argument) {
    Config& config = parse.config;
    Properties list = parse_list(argument);
    if (auto known = check_known(list, {"reboot", "shutdown", "panic", "watchdog"}); !known)
        return parse.at(known.error());
    if (list.has("watchdog")) return error("-action watchdog=: a watchdog device is not built yet");
    auto done = pick<OnReboot>(list, "reboot", config.on_reboot,
                               {{"reset", OnReboot::reset}, {"shutdown", OnReboot::shutdown}});
    if (done)
        done = pick<OnShutdown>(list, "shutdown", config.on_shutdown,
                                {{"poweroff", OnShutdown::poweroff}, {"pause", OnShutdown::pause}});
    if (done)
        done = pick<OnPanic>(list, "panic", config.on_panic,
                             {{"pause", OnPanic::pause},
                              {"shutdown", OnPanic::shutdown},
                              {"exit-failure", OnPanic::exit_failure},
                              {"none", OnPanic::none}});
    return done ? Result<void>() : Result<void>(parse.at(done.error()));
}

Result<void> on_trace(Parse& parse, OptionRow const&, std::string_view argument) {
    if (is_help(argument)) return parse.print(trace_help()), Result<void>();
    auto mask = parse_trace_items(argument);
    if (!mask) return parse.at(mask.error());
    parse.config.trace_mask |= *mask;
    return {};
}

// "start+length", "start-length" (ending at start), "start..end".
Result<void> on_trace_filter(Parse& parse, OptionRow const&, std::string_view argument) {
    for (auto const& [item, on] : parse_list(argument).items) {
        std::size_t at = item.find_first_of("+-.");
        std::size_t skip = item.compare(std::min(at, item.size()), 2, "..") == 0 ? 2 : 1;
        if (at == std::string::npos) return parse.at(error("Bad range specifier"));
        auto a = parse_number("start", std::string_view(item).substr(0, at));
        auto b = parse_number("end", std::string_view(item).substr(at + skip));
        if (!a || !b || (skip == 1 && (*b == 0 || item[at] == '.'))) return parse.at(error("Bad range specifier"));
        TraceRange range{*a, *b};
        if (item[at] == '+') range.last = *a + (*b - 1);
        if (item[at] == '-') range = {*a - (*b - 1), *a};
        if (range.last < range.first) return parse.at(error("Invalid range: it ends before it starts, or wraps"));
        parse.config.trace_ranges.push_back(range);
    }
    return {};
}

Result<void> on_gdb(Parse& parse, OptionRow const& row, std::string_view argument) {
    std::string_view spec = row.name == "s" ? "tcp::1234" : argument;
    if (spec == "none") return parse.config.gdb.reset(), Result<void>();
    // Like QEMU, a bare tcp:HOST:PORT listens.
    auto parsed =
        parse_char_spec(spec.starts_with("tcp:") ? fmt::format("{},server=on,wait=off", spec) : std::string(spec));
    if (!parsed) return parse.at(parsed.error());
    parse.config.gdb = *parsed;
    parse.config.gdb->id = "gdb";
    parse.config.gdb->origin = parse.spelled;
    return {};
}

Result<void> on_display(Parse& parse, OptionRow const&, std::string_view argument) {
    if (is_help(argument)) return parse.print("Available display backend types:\nnone\n"), Result<void>();
    std::string_view type = argument.substr(0, argument.find_first_of(",="));
    parse.display_given = true;
    bool known = false;
    for (std::string_view t : {"none", "sdl", "gtk", "vnc", "curses", "egl-headless", "spice-app", "dbus", "default"})
        known |= t == type;
    if (!known) return parse.at(error("Parameter 'type' does not accept value '{}'", type));
    if (type != "none" && !parse.offering.built.display)
        return error("-display {}: a graphical window is not built yet; use -nographic or -display none", type);
    parse.config.display = argument;
    return {};
}

Result<void> on_vga(Parse& parse, OptionRow const&, std::string_view argument) {
    constexpr std::pair<std::string_view, std::string_view> cards[] = {
        {"none", "no graphic card"}, {"std", "standard VGA (default)"},
        {"cirrus", "Cirrus VGA"},    {"vmware", "VMWare SVGA"},
        {"qxl", "QXL VGA"},          {"virtio", "Virtio VGA"}};
    if (is_help(argument)) {
        std::string text;
        for (auto const& [name, what] : cards) text += fmt::format("{:<20} {}\n", name, what);
        return parse.print(std::move(text)), Result<void>();
    }
    std::vector<std::string_view> names;
    for (auto const& card : cards) names.push_back(card.first);
    if (std::ranges::find(names, argument) == names.end())
        return error("unknown vga type: {}{}", argument, did_you_mean(argument, names));
    if (argument != "none" && !parse.offering.built.display)
        return error("-vga {}: a graphic card is not built yet", argument);
    parse.config.vga = argument;
    return {};
}

Result<void> on_escape_key(Parse& parse, OptionRow const&, std::string_view argument) {
    auto key = parse_number("echr", argument);
    if (!key || *key > 0xff)
        return parse.at(error("Bad argument to echr: it is a character's code, like 0x14 for Ctrl-t"));
    parse.config.escape_key = char(*key);
    return {};
}

} // namespace vmm
