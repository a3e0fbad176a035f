// -chardev, -serial, -monitor, -mon, -debugcon, and the console a run has without them.
#include "vmm/options/char_spec.h"
#include "vmm/options/keyval.h"
#include "vmm/options/table.h"

#include <algorithm>

namespace vmm {

namespace {

CharConfig* find_chardev(Config& config, std::string_view id) {
    auto it = std::ranges::find(config.chardevs, id, &CharConfig::id);
    return it == config.chardevs.end() ? nullptr : &*it;
}

// QEMU follows a backend's message with one that says which device is left without it.
Error connect_error(Parse const& parse, Error const& cause, std::string_view what, std::string_view spec) {
    std::string text = fmt::format("{}: {}", parse.spelled, cause.message());
    if (!what.empty()) text += fmt::format("\n{}: {}: {} '{}'", parse.config.program, parse.spelled, what, spec);
    return Error(text);
}
constexpr std::string_view serial_fails = "could not connect serial device to character backend";

// The backend a device option names: its id, existing or made now. `spec` is not "none".
Result<std::string> backend_for(Parse& parse, std::string_view spec, std::string id, std::string_view fails) {
    if (spec.starts_with("chardev:")) return std::string(spec.substr(8)); // looked up at the end: order is free
    auto parsed = parse_char_spec(spec);
    if (!parsed) return connect_error(parse, parsed.error(), fails, spec);
    if (spec == "-stdio") parse.warn(fmt::format("{}: taken as 'stdio'", parse.spelled));
    parsed->id = id;
    parsed->origin = parse.spelled;
    parse.config.chardevs.push_back(*parsed);
    return id;
}

void add_monitor(Config& config, std::string chardev) { config.monitors.push_back({std::move(chardev), false}); }

void add_default(Config& config, std::string id, CharKind kind, bool mux) {
    CharConfig backend;
    backend.id = std::move(id);
    backend.kind = kind;
    backend.mux = mux;
    backend.signal = !mux;
    config.chardevs.push_back(std::move(backend));
}

} // namespace

Result<void> on_chardev(Parse& parse, OptionRow const&, std::string_view argument) {
    if (is_help(argument)) return parse.print(std::string(chardev_help())), Result<void>();
    auto parsed = parse_chardev(argument);
    if (!parsed) return parse.at(parsed.error());
    if (find_chardev(parse.config, parsed->id)) return parse.at(error("Duplicate ID '{}' for chardev", parsed->id));
    parsed->origin = parse.spelled;
    parse.config.chardevs.push_back(*parsed);
    return {};
}

Result<void> on_serial(Parse& parse, OptionRow const&, std::string_view argument) {
    constexpr std::size_t most = 4; // COM1 to COM4
    parse.serial_given = true;
    auto& serials = parse.config.serials;
    if (serials.size() == most) return parse.at(error("too many serial ports: the machine has {}", most));
    if (argument == "none") return serials.emplace_back(), Result<void>();
    bool with_monitor = argument.starts_with("mon:");
    std::string id = TRY(backend_for(parse, argument, fmt::format("serial{}", serials.size()), serial_fails));
    serials.push_back(id);
    if (with_monitor) {
        parse.monitor_given = true;
        add_monitor(parse.config, id);
    }
    return {};
}

Result<void> on_parallel(Parse& parse, OptionRow const&, std::string_view argument) {
    if (argument == "none" || argument == "null") return {};
    return parse.at(error("parallel ports are not built yet"));
}

Result<void> on_monitor(Parse& parse, OptionRow const&, std::string_view argument) {
    parse.monitor_given = true;
    if (argument == "none") return {};
    auto& monitors = parse.config.monitors;
    std::string id = monitors.empty() ? "compat_monitor0" : fmt::format("compat_monitor{}", monitors.size());
    auto backend = backend_for(parse, argument, id, {});
    if (!backend)
        return error("{}\n{}: {}: parse error: {}", backend.error().message(), parse.config.program, parse.spelled,
                     argument);
    add_monitor(parse.config, *backend);
    return {};
}

Result<void> on_mon(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "chardev");
    if (auto known = check_known(list, {"chardev", "mode", "pretty", "id"}); !known) return parse.at(known.error());
    std::string const* chardev = list.find("chardev");
    if (!chardev) return parse.at(error("Parameter 'chardev' is missing"));
    std::string const* mode = list.find("mode");
    if (mode && *mode == "control" && !parse.offering.built.qmp)
        return error("-mon mode=control: the QMP monitor is not built yet");
    if (mode && *mode != "control" && *mode != "readline") return parse.at(error("unknown monitor mode \"{}\"", *mode));
    parse.config.monitors.push_back({*chardev, mode && *mode == "control"});
    parse.monitor_given = true;
    return {};
}

Result<void> on_debugcon(Parse& parse, OptionRow const&, std::string_view argument) {
    if (argument == "none") return {};
    std::string id = TRY(backend_for(parse, argument, "debugcon", "invalid character backend"));
    parse.config.debugcon = DebugconConfig{.chardev = id};
    return {};
}

namespace {

void add_default_console(Parse& parse) {
    Config& config = parse.config;
    if (config.no_defaults) return;
    if (config.nographic && !config.daemonize) {
        bool stdio_used = std::ranges::any_of(config.chardevs, [](auto const& c) { return c.kind == CharKind::stdio; });
        if (!parse.serial_given && !parse.monitor_given && !stdio_used) {
            add_default(config, "serial0", CharKind::stdio, true);
            config.serials.push_back("serial0");
            add_monitor(config, "serial0");
            return;
        }
        if (!parse.serial_given && !stdio_used) {
            add_default(config, "serial0", CharKind::stdio, false);
            config.serials.push_back("serial0");
            return;
        }
        if (!parse.monitor_given && !stdio_used) {
            add_default(config, "compat_monitor0", CharKind::stdio, false);
            add_monitor(config, "compat_monitor0");
        }
    }
    if (!parse.serial_given) {
        add_default(config, "serial0", CharKind::console, false);
        config.serials.push_back("serial0");
    }
}

Result<void> check_stdio(Parse const& parse) {
    Config const& config = parse.config;
    CharConfig const* first = nullptr;
    for (CharConfig const& backend : config.chardevs) {
        if (backend.kind != CharKind::stdio) continue;
        if (config.daemonize) return error("{}: cannot use stdio with -daemonize", backend.origin);
        if (!first) {
            first = &backend;
            continue;
        }
        CharConfig const& serial = first->id.starts_with("serial") ? *first : backend;
        std::string spec = serial.origin.substr(std::min(serial.origin.size(), serial.origin.find(' ') + 1));
        std::string text = fmt::format("{}: cannot use stdio by multiple character devices (to have the serial port "
                                       "and the monitor in one terminal, use -serial mon:stdio)",
                                       serial.origin);
        if (serial.id.starts_with("serial"))
            text += fmt::format("\n{}: {}: {} '{}'", config.program, serial.origin, serial_fails, spec);
        return Error(text);
    }
    return {};
}

} // namespace

Result<void> finish_characters(Parse& parse) {
    Config& config = parse.config;
    if (config.nographic && config.daemonize) return error("-nographic cannot be used with -daemonize");
    add_default_console(parse);
    TRY(check_stdio(parse));

    // References by id may come before the -chardev they mean, so they are checked here; each backend serves one front
    // end unless it has a mux.
    std::vector<std::string_view> used;
    auto refer = [&](std::string const& id, std::string const& missing) -> Result<void> {
        CharConfig* backend = find_chardev(config, id);
        if (!backend) return Error(missing);
        if (!backend->mux && std::ranges::find(used, id) != used.end())
            return error("Device '{}' is in use (mux=on on its -chardev lets several use it)", id);
        used.push_back(backend->id);
        return {};
    };
    for (std::string const& id : config.serials)
        if (!id.empty())
            TRY(refer(
                id, fmt::format("-serial chardev:{}: {} 'chardev:{}': no -chardev has that id", id, serial_fails, id)));
    for (MonitorConfig const& monitor : config.monitors)
        TRY(refer(monitor.chardev,
                  fmt::format("-mon chardev={}: chardev \"{}\" not found", monitor.chardev, monitor.chardev)));
    if (config.debugcon)
        TRY(refer(config.debugcon->chardev,
                  fmt::format("-debugcon chardev:{}: invalid character backend 'chardev:{}': no -chardev has that id",
                              config.debugcon->chardev, config.debugcon->chardev)));
    return {};
}

} // namespace vmm
