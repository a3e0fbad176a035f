#include "block/nbd/nbd_options.h"

#include "block/nbd/protocol.h"

#include <algorithm>
#include <cctype>

namespace vmm::block::nbd {

namespace {

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = char(std::tolower(static_cast<unsigned char>(c)));
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

Result<std::string> percent_decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        int high = i + 1 < text.size() ? hex_digit(text[i + 1]) : -1,
            low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
        if (high < 0 || low < 0) return error("'%' in '{}' is not followed by two hexadecimal digits", text);
        out += char(high * 16 + low);
        i += 2;
    }
    return out;
}

// "host", "host:port", "[::1]:port".
void split_authority(std::string_view authority, SocketAddress& address) {
    address.port = std::to_string(default_port);
    std::size_t colon = authority.rfind(':');
    if (authority.starts_with('[')) {
        std::size_t close = authority.find(']');
        address.host = std::string(authority.substr(1, close == std::string_view::npos ? close : close - 1));
        if (close == std::string_view::npos || close + 1 >= authority.size()) return;
        colon = close + 1;
    } else {
        address.host = std::string(authority.substr(0, colon));
    }
    if (colon != std::string_view::npos && colon + 1 < authority.size()) address.port = authority.substr(colon + 1);
}

Result<void> take_parameter(NbdLocation& where, std::string_view name, std::string value) {
    if (name == "socket")
        where.address.path = std::move(value);
    else if (name == "tls-psk-file")
        where.tls_psk_file = std::move(value);
    else if (name == "tls-certificates")
        where.tls_directory = std::move(value);
    else if (name == "tls-hostname")
        where.tls_hostname = std::move(value);
    else
        return error(
            "Unknown parameter '{}' in an NBD URI (socket, tls-psk-file, tls-certificates and tls-hostname are "
            "known)",
            name);
    return {};
}

Result<NbdLocation> parse_uri(std::string_view uri) {
    NbdLocation where;
    std::size_t scheme_end = uri.find("://");
    std::string_view scheme = uri.substr(0, scheme_end), rest = uri.substr(scheme_end + 3);
    where.tls = scheme.starts_with("nbds");
    bool unix_socket = scheme.ends_with("+unix");
    std::string_view query;
    if (std::size_t mark = rest.find('?'); mark != std::string_view::npos) {
        query = rest.substr(mark + 1);
        rest = rest.substr(0, mark);
    }
    std::size_t slash = rest.find('/');
    std::string_view authority = rest.substr(0, slash);
    if (slash != std::string_view::npos) where.export_name = TRY(percent_decoded(rest.substr(slash + 1)));
    if (std::size_t at = authority.rfind('@'); at != std::string_view::npos) {
        where.tls_username = TRY(percent_decoded(authority.substr(0, at)));
        authority = authority.substr(at + 1);
    }
    while (!query.empty()) {
        std::string_view one = query.substr(0, query.find('&'));
        query.remove_prefix(std::min(query.size(), one.size() + 1));
        std::size_t equals = one.find('=');
        if (equals == std::string_view::npos) return error("'{}' in an NBD URI has no value", one);
        std::string value = TRY(percent_decoded(one.substr(equals + 1)));
        TRY(take_parameter(where, one.substr(0, equals), std::move(value)));
    }
    if (unix_socket) {
        if (!authority.empty()) return error("NBD URI '{}' must not name a host: nbd+unix:///EXPORT?socket=PATH", uri);
        if (where.address.path.empty()) return error("NBD URI '{}' lacks '?socket=PATH'", uri);
        return where;
    }
    if (!where.address.path.empty()) return error("NBD URI '{}' names a socket, but is not nbd+unix://", uri);
    if (authority.empty()) return error("NBD URI '{}' names no host", uri);
    split_authority(authority, where.address);
    return where;
}

} // namespace

bool is_nbd_name(std::string_view filename) {
    for (std::string_view scheme : {"nbd:", "nbds:", "nbd+unix:", "nbd+tcp:", "nbds+unix:", "nbds+tcp:"})
        if (filename.starts_with(scheme)) return true;
    return false;
}

Result<NbdLocation> parse_nbd_name(std::string_view filename) {
    if (filename.find("://") != std::string_view::npos) return parse_uri(filename);
    if (!filename.starts_with("nbd:")) return error("'{}' is no NBD name: nbd://HOST:PORT/EXPORT", filename);
    NbdLocation where;
    std::string_view rest = filename.substr(4);
    constexpr std::string_view export_mark = ":exportname=";
    if (std::size_t mark = rest.find(export_mark); mark != std::string_view::npos) {
        where.export_name = rest.substr(mark + export_mark.size());
        rest = rest.substr(0, mark);
    }
    if (rest.starts_with("unix:")) {
        where.address.path = rest.substr(5);
    } else {
        if (rest.find(':') == std::string_view::npos)
            return error("host and port of '{}' should be separated by ':'", filename);
        split_authority(rest, where.address);
    }
    return where;
}

Result<NbdLocation> nbd_location(OpenOptions const& options) {
    NbdLocation where;
    if (!options.filename.empty()) where = TRY(parse_nbd_name(options.filename));
    for (auto const& [name, value] : options.tree.all()) {
        std::string_view key = name;
        if (key.starts_with("server.")) key.remove_prefix(7);
        if (key == "host")
            where.address.host = value;
        else if (key == "port")
            where.address.port = value;
        else if (key == "path")
            where.address.path = value;
        else if (key == "export")
            where.export_name = value;
        else if (key == "tls-creds")
            where.tls_creds = value;
        else if (key == "tls-hostname")
            where.tls_hostname = value;
        else if (key == "x-dirty-bitmap")
            where.bitmap_context = value;
        else if (key == "reconnect-delay")
            where.reconnect_delay_seconds = TRY(options.tree.number(name, 0));
        else if (key == "open-timeout")
            where.open_timeout_seconds = TRY(options.tree.number(name, 0));
        else if (key == "type" && value != "unix" && value != "inet")
            return error("Parameter 'server.type' does not accept value '{}'", value);
        else if (key != "type" && key != "filename" && key != "driver")
            return error("Block protocol 'nbd' doesn't support the option '{}'", name);
    }
    constexpr std::uint64_t longest_wait_seconds = 24 * 3600;
    if (where.reconnect_delay_seconds > longest_wait_seconds || where.open_timeout_seconds > longest_wait_seconds)
        return error("'reconnect-delay' and 'open-timeout' are at most {} seconds", longest_wait_seconds);
    if (!where.address.path.empty() && !where.address.host.empty())
        return error("path and host may not be used at the same time");
    if (where.address.path.empty() && where.address.host.empty())
        return error("one of path and host must be specified");
    if (where.address.port.empty()) where.address.port = std::to_string(default_port);
    return where;
}

} // namespace vmm::block::nbd
