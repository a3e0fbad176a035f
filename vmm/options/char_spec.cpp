#include "vmm/options/char_spec.h"

#include "vmm/base/port.h"
#include "vmm/base/text.h"
#include "vmm/options/keyval.h"

namespace vmm {

namespace {

constexpr std::string_view spec_drivers[] = {"stdio", "null", "none",   "pty", "file",
                                             "pipe",  "tcp",  "telnet", "udp", "unix"};
constexpr std::string_view chardev_drivers[] = {"null", "stdio", "file", "pipe", "pty", "socket", "udp"};

// Drivers QEMU has and we do not.
Result<void> refuse_unbuilt(std::string_view driver) {
    for (std::string_view known :
         {"con", "braille", "msmouse", "wctablet", "websocket", "tn3270", "fdset", "ringbuf", "serial", "tty",
          "parallel", "parport", "spicevmc", "spiceport", "qemu-vdagent", "dbus", "mux", "testdev", "memory"})
        if (driver == known) return error("the '{}' character backend is not built yet", driver);
    return {};
}

Result<void> set_socket_options(CharConfig& config, Properties const& list) {
    config.server = TRY(bool_of(list, "server", false));
    config.wait = TRY(bool_of(list, "wait", true));
    config.nodelay = !TRY(bool_of(list, "delay", true)) || TRY(bool_of(list, "nodelay", false));
    if (TRY(bool_of(list, "telnet", config.telnet))) config.telnet = true;
    if (list.has("wait") && !config.server)
        return error("'wait' option is incompatible with socket in client connect mode");
    if (std::string const* text = list.find("reconnect")) {
        constexpr std::uint64_t most = 86400; // a day
        std::uint64_t const seconds = TRY(parse_number("reconnect", *text));
        if (seconds > most) return error("reconnect must be at most {} seconds", most);
        if (seconds != 0 && config.server)
            return error("'reconnect' option is incompatible with socket in server listen mode");
        config.reconnect_seconds = unsigned(seconds);
    }
    return {};
}
// The options after a socket's address.
Result<void> check_socket_keys(Properties const& list) {
    return check_known(list, {"server", "wait", "delay", "nodelay", "telnet", "ipv4", "ipv6", "reconnect"});
}

// HOST:PORT, either of which may be empty; a host with colons in brackets.
Result<void> split_address(std::string_view text, std::string& host, std::string& port) {
    std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return error("'{}' is not of the form HOST:PORT", text);
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    return check_port(port);
}

Result<CharConfig> parse_tcp(CharConfig config, std::string_view rest) {
    Properties list = parse_list(rest, "address");
    std::string address = list.items.empty() ? "" : list.items.front().second;
    if (!list.items.empty()) list.items.erase(list.items.begin());
    if (address.find(':') != std::string::npos) TRY(split_address(address, config.host, config.port));
    if (config.port.empty()) return error("'{}' needs a host and a port: tcp:HOST:PORT", address);
    TRY(check_socket_keys(list));
    TRY(set_socket_options(config, list));
    return config;
}

// [HOST]:PORT[@[LOCAL]:PORT]
Result<CharConfig> parse_udp(CharConfig config, std::string_view rest) {
    std::size_t at = rest.find('@');
    TRY(split_address(rest.substr(0, at), config.host, config.port));
    if (at != std::string_view::npos) TRY(split_address(rest.substr(at + 1), config.local_host, config.local_port));
    if (config.port.empty()) return error("chardev: udp: remote port not specified");
    return config;
}

Result<CharConfig> parse_unix(CharConfig config, std::string_view rest) {
    Properties list = parse_list(rest, "path");
    if (std::string const* path = list.find("path")) config.path = *path;
    if (!list.items.empty()) list.items.erase(list.items.begin());
    if (config.path.empty()) return error("a unix socket needs a path: unix:PATH");
    TRY(check_socket_keys(list));
    TRY(set_socket_options(config, list));
    return config;
}

} // namespace

Result<CharConfig> parse_char_spec(std::string_view spec) {
    CharConfig config;
    std::string_view whole = spec;
    if (spec.starts_with("mon:")) {
        spec.remove_prefix(4);
        config.mux = true;
    }
    if (spec == "-stdio") spec = "stdio"; // as the old manuals have it
    std::size_t colon = spec.find(':');
    std::string_view driver = spec.substr(0, colon);
    std::string_view rest = colon == std::string_view::npos ? std::string_view{} : spec.substr(colon + 1);
    bool bare = colon == std::string_view::npos;
    if (spec == "null" || spec == "stdio" || spec == "pty") {
        config.kind = spec == "null" ? CharKind::null : spec == "pty" ? CharKind::pty : CharKind::stdio;
        // On a mux Ctrl-C belongs to the guest; Ctrl-a x is the way out.
        if (config.kind == CharKind::stdio) config.signal = !config.mux;
        return config;
    }
    if (driver == "vc") return error("the 'vc' character backend is not built yet (it needs a graphical window)");
    if (driver == "file" || driver == "pipe") {
        config.kind = driver == "file" ? CharKind::file : CharKind::pipe;
        Properties list = parse_list(rest, "path");
        TRY(check_known(list, {"path", "append"}));
        if (std::string const* path = list.find("path")) config.path = *path;
        config.append = TRY(bool_of(list, "append", false));
        if (config.path.empty()) return error("chardev: {}: no filename given", driver);
        return config;
    }
    if (!bare && (driver == "tcp" || driver == "telnet")) {
        config.kind = CharKind::tcp;
        config.telnet = driver == "telnet";
        return parse_tcp(config, rest);
    }
    if (!bare && driver == "udp") {
        config.kind = CharKind::udp;
        return parse_udp(config, rest);
    }
    if (!bare && driver == "unix") {
        config.kind = CharKind::unix_;
        return parse_unix(config, rest);
    }
    if (spec.starts_with("/dev/")) return error("host serial and parallel ports ('{}') are not built yet", spec);
    TRY(refuse_unbuilt(driver));
    return error("'{}' is not a valid char driver{}", config.mux ? whole.substr(4) : whole,
                 did_you_mean(driver, spec_drivers));
}

Result<CharConfig> parse_chardev(std::string_view argument) {
    Properties list = parse_list(argument, "backend");
    std::string const* driver = list.find("backend");
    std::string const* id = list.find("id");
    if (!driver) return error("chardev: \"{}\" missing backend", argument);
    if (!id || id->empty()) return error("chardev: no id specified");
    CharConfig config;
    config.id = *id;
    config.mux = TRY(bool_of(list, "mux", false));
    if (list.has("logfile")) return error("chardev logfile= is not built yet");
    std::string const* path = list.find("path");
    if (*driver == "null" || *driver == "pty") {
        config.kind = *driver == "null" ? CharKind::null : CharKind::pty;
        TRY(check_known(list, {"backend", "id", "mux"}));
    } else if (*driver == "stdio") {
        config.kind = CharKind::stdio;
        TRY(check_known(list, {"backend", "id", "mux", "signal"}));
        config.signal = TRY(bool_of(list, "signal", true));
    } else if (*driver == "file" || *driver == "pipe") {
        config.kind = *driver == "file" ? CharKind::file : CharKind::pipe;
        TRY(check_known(list, {"backend", "id", "mux", "path", "append"}));
        if (!path || path->empty()) return error("chardev: {}: no filename given", *driver);
        config.path = *path;
        config.append = TRY(bool_of(list, "append", false));
    } else if (*driver == "socket") {
        TRY(check_known(list, {"backend", "id", "mux", "path", "host", "port", "server", "wait", "delay", "nodelay",
                               "telnet", "ipv4", "ipv6", "reconnect"}));
        std::string const* port = list.find("port");
        if (!path && !port) return error("chardev: socket: needs path=FILE, or host=NAME,port=NUMBER");
        config.kind = path ? CharKind::unix_ : CharKind::tcp;
        if (path) config.path = *path;
        if (port) config.port = *port;
        TRY(check_port(config.port));
        if (std::string const* host = list.find("host")) config.host = *host;
        TRY(set_socket_options(config, list));
    } else if (*driver == "udp") {
        TRY(check_known(list, {"backend", "id", "mux", "host", "port", "localaddr", "localport", "ipv4", "ipv6"}));
        config.kind = CharKind::udp;
        for (auto const& [key, to] :
             {std::pair{"host", &config.host}, std::pair{"port", &config.port},
              std::pair{"localaddr", &config.local_host}, std::pair{"localport", &config.local_port}})
            if (std::string const* value = list.find(key)) *to = *value;
        TRY(check_port(config.port));
        TRY(check_port(config.local_port));
        if (config.port.empty()) return error("chardev: udp: remote port not specified");
    } else if (*driver == "vc") {
        return error("the 'vc' character backend is not built yet (it needs a graphical window)");
    } else {
        TRY(refuse_unbuilt(*driver));
        return error("'{}' is not a valid char driver name{}", *driver, did_you_mean(*driver, chardev_drivers));
    }
    return config;
}

std::string_view chardev_help() {
    return "Available chardev backend types: \n  stdio\n  file\n  pipe\n  pty\n  socket\n  udp\n  null\n";
}

} // namespace vmm
