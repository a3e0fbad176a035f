// What vmm-nbd was asked to do: its command line as one structure.
#pragma once
#include "block/core/open_options.h"
#include "block/nbd/socket_stream.h"

#include <optional>
#include <string>
#include <vector>

namespace vmm::block {

struct NbdArguments {
    enum class Mode : std::uint8_t { serve, list, disconnect, help, version } mode = Mode::serve;

    // Serving.
    std::string image;                 // FILE
    OpenOptions open;                  // -f -r --cache --aio --discard --detect-zeroes --image-opts
    std::uint64_t offset = 0;          // -o
    std::optional<unsigned> partition; // -P
    bool snapshot = false;             // -s
    std::string load_snapshot;         // -l: an id or a name
    std::vector<std::string> bitmaps;  // -B
    bool allocation_depth = false;     // -A
    std::string export_name, description;
    unsigned shared = 1; // -e; 0: no limit
    bool persistent = false;
    bool fork = false, verbose = false;
    std::string pid_file;

    // Where: the socket (-k, or -b and -p), or the kernel's device (-c, -d).
    nbd::SocketAddress address;
    bool address_given = false;
    std::string device;

    std::vector<std::string> objects;
    std::string tls_creds, tls_hostname, tls_authz;
};

// Errors are worded as qemu-nbd's; `usage` is set when the user should be pointed to --help.
Result<NbdArguments> parse_nbd_arguments(int argc, char** argv, bool& usage);
// The text of --help.
std::string nbd_help(std::string_view program);

} // namespace vmm::block
