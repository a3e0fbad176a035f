// CharConfig: one character backend as the user described it. Written by vmm/options, read by ui/chardev.
#pragma once
#include <cstdint>
#include <string>

namespace vmm {

enum class CharKind : std::uint8_t {
    null,    // reads nothing, swallows everything
    stdio,   // standard input and output
    file,    // output to `path`
    pipe,    // `path`.in and `path`.out, or `path` for both ways
    pty,     // a new pseudo-terminal; its name is printed
    unix_,   // unix-domain socket at `path`
    tcp,     // TCP socket at `host`:`port`; with `telnet`, the telnet protocol on top
    udp,     // datagrams to `host`:`port`, received at `local_host`:`local_port`
    console, // "vc": a text console of the window; nothing yet, acts as null when it is only a default
};

struct CharConfig {
    std::string id; // "serial0", "compat_monitor0", or the user's
    CharKind kind = CharKind::null;
    // What the user wrote, for messages: "-serial tcp:localhost:1". Empty for defaults.
    std::string origin;
    bool mux = false;                   // Ctrl-a (-echr) keys, several front ends (mon:, mux=on)
    bool append = false;                // file: keep what is there
    bool signal = true;                 // stdio: Ctrl-C, Ctrl-Z and Ctrl-\ act on us; false: they go to the guest
    bool server = false;                // unix, tcp: listen
    bool wait = true;                   // server: start only once somebody has connected
    bool telnet = false;                // tcp
    bool nodelay = false;               // tcp
    unsigned reconnect_seconds = 0;     // unix, tcp client: try again after so long; 0: never
    std::string path;                   // file, pipe, unix_
    std::string host;                   // tcp, udp; empty: all addresses (server), localhost (client)
    std::string port;                   // tcp, udp; a number or a service name
    std::string local_host, local_port; // udp; empty: any
};

} // namespace vmm
