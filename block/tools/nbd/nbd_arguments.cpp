#include "block/tools/nbd/nbd_arguments.h"

#include "block/nbd/protocol.h"
#include "vmm/base/text.h"

#include <getopt.h>

#include <charconv>
#include <cstdlib>

namespace vmm::block {

namespace {

enum Long : int {
    opt_cache = 256,
    opt_aio,
    opt_discard,
    opt_detect_zeroes,
    opt_image_opts,
    opt_fork,
    opt_pid_file,
    opt_object,
    opt_tls_creds,
    opt_tls_hostname,
    opt_tls_authz,
    opt_selinux
};

constexpr option long_options[] = {
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {"port", required_argument, nullptr, 'p'},
    {"bind", required_argument, nullptr, 'b'},
    {"socket", required_argument, nullptr, 'k'},
    {"shared", required_argument, nullptr, 'e'},
    {"persistent", no_argument, nullptr, 't'},
    {"verbose", no_argument, nullptr, 'v'},
    {"export-name", required_argument, nullptr, 'x'},
    {"description", required_argument, nullptr, 'D'},
    {"offset", required_argument, nullptr, 'o'},
    {"partition", required_argument, nullptr, 'P'},
    {"allocation-depth", no_argument, nullptr, 'A'},
    {"bitmap", required_argument, nullptr, 'B'},
    {"list", no_argument, nullptr, 'L'},
    {"connect", required_argument, nullptr, 'c'},
    {"disconnect", no_argument, nullptr, 'd'},
    {"format", required_argument, nullptr, 'f'},
    {"read-only", no_argument, nullptr, 'r'},
    {"snapshot", no_argument, nullptr, 's'},
    {"load-snapshot", required_argument, nullptr, 'l'},
    {"nocache", no_argument, nullptr, 'n'},
    {"trace", required_argument, nullptr, 'T'},
    {"cache", required_argument, nullptr, opt_cache},
    {"aio", required_argument, nullptr, opt_aio},
    {"discard", required_argument, nullptr, opt_discard},
    {"detect-zeroes", required_argument, nullptr, opt_detect_zeroes},
    {"image-opts", no_argument, nullptr, opt_image_opts},
    {"fork", no_argument, nullptr, opt_fork},
    {"pid-file", required_argument, nullptr, opt_pid_file},
    {"object", required_argument, nullptr, opt_object},
    {"tls-creds", required_argument, nullptr, opt_tls_creds},
    {"tls-hostname", required_argument, nullptr, opt_tls_hostname},
    {"tls-authz", required_argument, nullptr, opt_tls_authz},
    {"selinux-label", required_argument, nullptr, opt_selinux},
    {nullptr, 0, nullptr, 0},
};

// What the options leave open until all are seen.
struct Collected {
    bool cache = false, discard = false, aio = false, image_opts = false, disconnect = false, list = false;
    std::string port, bind, socket;
};

template <class T> std::optional<T> whole_number(std::string_view text) {
    T value{};
    auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

Result<void> set_cache(NbdArguments& arguments, Collected& seen, std::string const& mode) {
    if (seen.cache) return error("-n and --cache can only be specified once");
    seen.cache = true;
    auto parsed = parse_cache_mode(mode);
    if (!parsed.ok()) return error("Invalid cache mode `{}'", mode);
    arguments.open.cache = parsed.value();
    return {};
}

// The options of the image.
Result<bool> image_option(int which, std::string const& value, NbdArguments& arguments, Collected& seen) {
    switch (which) {
    case 'f': arguments.open.format = value; return true;
    case 'r': arguments.open.read_only = true; return true;
    case 's': arguments.snapshot = true; return true;
    case 'n': TRY(set_cache(arguments, seen, "none")); return true;
    case opt_cache: TRY(set_cache(arguments, seen, value)); return true;
    case 'l': {
        arguments.load_snapshot = value;
        for (std::string_view key : {"snapshot.id=", "snapshot.name="})
            if (value.starts_with(key)) arguments.load_snapshot = value.substr(key.size());
        arguments.open.read_only = true;
        return true;
    }
    case opt_aio: {
        if (seen.aio) return error("--aio can only be specified once");
        seen.aio = true;
        auto parsed = parse_aio_engine(value);
        if (!parsed.ok()) return error("Invalid aio mode '{}'", value);
        arguments.open.aio = parsed.value();
        return true;
    }
    case opt_discard: {
        if (seen.discard) return error("--discard can only be specified once");
        seen.discard = true;
        auto parsed = parse_discard_mode(value);
        if (!parsed.ok()) return error("Invalid discard mode `{}'", value);
        arguments.open.discard = parsed.value();
        return true;
    }
    case opt_detect_zeroes: {
        auto parsed = parse_detect_zeroes(value);
        if (!parsed.ok()) return error("Failed to parse detect_zeroes mode: invalid parameter value: {}", value);
        arguments.open.detect_zeroes = parsed.value();
        return true;
    }
    case opt_image_opts: seen.image_opts = true; return true;
    default: return false;
    }
}

// The options of the export and the server.
Result<bool> server_option(int which, std::string const& value, NbdArguments& arguments, Collected& seen) {
    switch (which) {
    case 'p':
        if (auto port = whole_number<unsigned>(value); port && (*port == 0 || *port > 65535))
            return error("Port out of range '{}'", value);
        seen.port = value;
        return true;
    case 'b': seen.bind = value; return true;
    case 'k':
        if (!value.starts_with('/')) return error("socket path must be absolute");
        seen.socket = value;
        return true;
    case 'e': {
        auto number = whole_number<unsigned>(value);
        if (!number) return error("Invalid shared device number '{}'", value);
        arguments.shared = *number;
        return true;
    }
    case 'o': {
        auto number = parse_size(value, "offset");
        if (!number.ok()) return error("Invalid offset '{}'", value);
        arguments.offset = number.value();
        return true;
    }
    case 'P': {
        auto number = whole_number<unsigned>(value);
        if (!number || *number == 0 || *number > 128) return error("Invalid partition {}", value);
        arguments.partition = *number;
        return true;
    }
    case 't': arguments.persistent = true; return true;
    case 'x': arguments.export_name = value; return true;
    case 'D': arguments.description = value; return true;
    case 'A': arguments.allocation_depth = true; return true;
    case 'B': arguments.bitmaps.push_back(value); return true;
    case 'c': arguments.device = value; return true;
    case 'd': seen.disconnect = true; return true;
    case 'L': seen.list = true; return true;
    default: return false;
    }
}

Result<void> other_option(int which, std::string const& value, NbdArguments& arguments) {
    switch (which) {
    case 'v': arguments.verbose = true; break;
    case 'h': arguments.mode = NbdArguments::Mode::help; break;
    case 'V': arguments.mode = NbdArguments::Mode::version; break;
    case opt_fork: arguments.fork = true; break;
    case opt_pid_file: arguments.pid_file = value; break;
    case opt_object: arguments.objects.push_back(value); break;
    case opt_tls_creds: arguments.tls_creds = value; break;
    case opt_tls_hostname: arguments.tls_hostname = value; break;
    case opt_tls_authz: arguments.tls_authz = value; break;
    case opt_selinux: return error("SELinux support not enabled in this binary");
    default: break; // -T
    }
    return {};
}

Result<void> finish_address(NbdArguments& arguments, Collected const& seen) {
    bool tcp = !seen.port.empty() || !seen.bind.empty();
    if (tcp && !seen.socket.empty()) return error("Unix socket (-k) and port or address (-p, -b) can't both be used");
    arguments.address_given = tcp || !seen.socket.empty();
    arguments.address.path = seen.socket;
    arguments.address.host = seen.bind.empty() ? "0.0.0.0" : seen.bind;
    if (seen.list && seen.bind.empty()) arguments.address.host = "localhost";
    arguments.address.port = seen.port.empty() ? std::to_string(nbd::default_port) : seen.port;
    return {};
}

} // namespace

Result<NbdArguments> parse_nbd_arguments(int argc, char** argv, bool& usage) {
    NbdArguments arguments;
    Collected seen;
    usage = false;
    for (int which;
         (which = getopt_long(argc, argv, "hVb:o:p:rsnc:dvk:e:f:tl:x:T:D:AB:LP:", long_options, nullptr)) != -1;) {
        std::string value = optarg ? optarg : "";
        if (which == '?') {
            usage = true;
            return error(""); // getopt has said what is wrong
        }
        if (TRY(image_option(which, value, arguments, seen))) continue;
        if (TRY(server_option(which, value, arguments, seen))) continue;
        TRY(other_option(which, value, arguments));
        if (arguments.mode != NbdArguments::Mode::serve) return arguments;
    }
    TRY(finish_address(arguments, seen));
    if (!arguments.tls_authz.empty() && arguments.tls_creds.empty())
        return error("--tls-authz is not permitted without --tls-creds");
    if (!arguments.tls_authz.empty())
        return error("--tls-authz is not supported: list the allowed clients by their own CA instead");
    int operands = argc - optind;
    if (seen.list) {
        arguments.mode = NbdArguments::Mode::list;
        if (operands != 0) return error("List mode is incompatible with a file name");
        if (!arguments.export_name.empty() || !arguments.description.empty() || arguments.offset ||
            arguments.partition || !arguments.device.empty() || seen.disconnect || !arguments.open.format.empty() ||
            arguments.snapshot || arguments.open.read_only || seen.cache || seen.discard || seen.image_opts)
            return error("List mode is incompatible with per-device settings");
        if (arguments.fork) return error("List mode is incompatible with forking");
        return arguments;
    }
    if (operands != 1) {
        usage = true;
        return error("Invalid number of arguments");
    }
    arguments.image = argv[optind];
    if (seen.disconnect) {
        arguments.mode = NbdArguments::Mode::disconnect;
        arguments.device = arguments.image;
        return arguments;
    }
    if (seen.image_opts && !arguments.open.format.empty()) return error("--image-opts and -f are mutually exclusive");
    if (seen.image_opts) {
        OpenOptions parsed = TRY(parse_image_opts(arguments.image));
        arguments.open.filename = parsed.filename;
        arguments.open.format = parsed.format;
        arguments.open.tree = parsed.tree;
    } else {
        arguments.open.filename = arguments.image;
    }
    if (!arguments.device.empty() && arguments.address_given)
        return error("Kernel device (-c) and a socket address (-k, -p, -b) can't both be used");
    if (!arguments.device.empty() && !arguments.tls_creds.empty())
        return error("TLS is not supported with a host device");
    return arguments;
}

std::string nbd_help(std::string_view program) {
    return fmt::format(R"(Usage: {0} [OPTIONS] FILE
  or:  {0} -L [OPTIONS]
Disk Network Block Device Utility

  -h, --help                display this help and exit
  -V, --version             output version information and exit

Connection properties:
  -p, --port=PORT           port to listen on (default `10809')
  -b, --bind=IFACE          interface to bind to (default `0.0.0.0')
  -k, --socket=PATH         path to the unix socket
  -e, --shared=NUM          device can be shared by NUM clients (default '1')
  -t, --persistent          don't exit on the last connection
  -v, --verbose             display extra debugging information
  -x, --export-name=NAME    expose export by name (default is empty string)
  -D, --description=TEXT    export a human-readable description

Exposing part of the image:
  -o, --offset=OFFSET       offset into the image
  -P, --partition=NUM       only expose partition NUM (MBR or GPT)
  -A, --allocation-depth    expose the allocation depth
  -B, --bitmap=NAME         expose a persistent dirty bitmap

General purpose options:
  -L, --list                list exports available from another NBD server
  --object type,id=ID,...   define an object such as 'secret' for providing
                            passwords and/or encryption keys, or
                            'tls-creds-psk', 'tls-creds-x509', 'tls-creds-anon'
  --tls-creds=ID            use id of an earlier --object to provide TLS
  --tls-hostname=NAME       with -L: the name the server's certificate must have
  --tls-authz=ID            refused: who may connect is decided by the CA of the
                            credentials, or by the keys of 'tls-creds-psk'
  -T, --trace PATTERN       accepted: there are no trace points
  --fork                    fork off the server process and exit the parent
                            once the server is running
  --pid-file=PATH           store the server's process ID in the given file
  --selinux-label=LABEL     refused: this program is built without SELinux

Kernel NBD client support:
  -c, --connect=DEV         connect FILE to the local NBD device DEV
  -d, --disconnect          disconnect the specified device

Block device options:
  -f, --format=FORMAT       set image format (raw, qcow2, ...)
  -r, --read-only           export read-only
  -s, --snapshot            use FILE as an external snapshot, create a temporary
                            file with backing_file=FILE, redirect the write to
                            the temporary one
  -l, --load-snapshot=SNAPSHOT_PARAM
                            load an internal snapshot inside FILE and export it
                            as an read-only device, SNAPSHOT_PARAM format is
                            'snapshot.id=[ID],snapshot.name=[NAME]', or
                            '[ID_OR_NAME]'
  -n, --nocache             disable host cache
      --cache=MODE          set cache mode used to access the disk image, the
                            valid options are: 'none', 'writeback' (default),
                            'writethrough', 'directsync' and 'unsafe'
      --aio=MODE            set AIO mode (native, io_uring or threads)
      --discard=MODE        set discard mode (ignore, unmap)
      --detect-zeroes=MODE  set detect-zeroes mode (off, on, unmap)
      --image-opts          treat FILE as a full set of image options
)",
                       program);
}

} // namespace vmm::block
