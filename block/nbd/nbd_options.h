// Where an NBD export is: from a URI, QEMU's older "nbd:..." names, or an option tree.
#pragma once
#include "block/core/open_options.h"
#include "block/nbd/socket_stream.h"

#include <string>

namespace vmm::block::nbd {

struct NbdLocation {
    SocketAddress address;
    std::string export_name;
    bool tls = false;                                      // nbds://
    std::string tls_creds;                                 // id of credentials
    std::string tls_hostname;                              // what the certificate must name; empty: the host
    std::string tls_username, tls_psk_file, tls_directory; // from a URI's tls-* parameters and user
    std::string bitmap_context;                            // x-dirty-bitmap: asked for in place of base:allocation
    std::uint64_t reconnect_delay_seconds = 0;             // how long requests wait for a lost server
    std::uint64_t open_timeout_seconds = 0;                // how long opening waits for a server
};

// True for "nbd:...", "nbd://", "nbds://", "nbd+unix://" and so on.
bool is_nbd_name(std::string_view filename);
// nbd://[user@]host[:port]/export, nbd+unix:///export?socket=path, nbd+tcp, nbds...; "nbd:host:port[:exportname=x]",
// "nbd:unix:path[:exportname=x]".
Result<NbdLocation> parse_nbd_name(std::string_view filename);
// The name, then tree: host, port, path, export, server.type|path|host|port, tls-creds, tls-hostname, x-dirty-bitmap,
// reconnect-delay, open-timeout.
Result<NbdLocation> nbd_location(OpenOptions const& options);

} // namespace vmm::block::nbd
