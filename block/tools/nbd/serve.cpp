#include "block/tools/nbd/serve.h"

#include "block/core/capabilities.h"
#include "block/nbd/server.h"
#include "block/tools/common/partitions.h"
#include "block/tools/nbd/daemon.h"
#include "block/tools/nbd/kernel_device.h"

#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

namespace vmm::block {

namespace {

// The signals that end the server, as an event of the loop. Made before worker threads, which inherit the mask.
class StopSignals {
public:
    StopSignals(EventLoop& loop, std::function<void()> stop) : loop_(loop) {
        sigset_t set;
        sigemptyset(&set);
        for (int one : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, one);
        pthread_sigmask(SIG_BLOCK, &set, nullptr);
        fd_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
        loop_.watch(fd_.get(), Ready::read, [this, stop = std::move(stop)](Ready) {
            signalfd_siginfo info;
            if (::read(fd_.get(), &info, sizeof info) == ssize_t(sizeof info)) stop();
        });
    }
    ~StopSignals() { loop_.unwatch(fd_.get()); }

private:
    EventLoop& loop_;
    UniqueFd fd_;
};

// The overlay of `-s`: a temporary file, unlinked as soon as it is open.
Result<std::string> temporary_path() {
    char const* directory = std::getenv("TMPDIR");
    std::string path = std::string(directory ? directory : "/var/tmp") + "/vmm-nbd-XXXXXX";
    UniqueFd file(mkstemp(path.data()));
    if (!file) return error_from_errno(errno, "Could not create temporary overlay '{}'", path);
    return path;
}

Task<Result<std::unique_ptr<Image>>> open_overlay(BlockContext& context, OpenOptions base) {
    Format const* qcow2 = context.formats.find("qcow2");
    if (!qcow2 || !qcow2->create) co_return error("-s needs the qcow2 format, which this program lacks");
    base.read_only = true;
    CO_TRY_ASSIGN(std::unique_ptr<Image> below, co_await open_image(context, base));
    std::uint64_t size = below->size_bytes();
    std::string format(below->format_name());
    std::string filename = below->filename();
    CO_TRY(co_await close_image(std::move(below)));
    CO_TRY_ASSIGN(std::string path, temporary_path());
    CreateRequest create;
    create.filename = path;
    create.size_bytes = size;
    create.options.add_defaults(qcow2->create_options);
    Result<void> created = co_await qcow2->create(context, create);
    OpenOptions top;
    top.filename = path;
    top.format = "qcow2";
    top.backing = BackingChoice::override_;
    char absolute[PATH_MAX];
    top.backing_filename = realpath(filename.c_str(), absolute) ? std::string(absolute) : filename;
    top.backing_format = format;
    top.cache = CacheMode::unsafe; // gone at the end whatever happens
    Result<std::unique_ptr<Image>> overlay(Error("", 0));
    if (created.ok())
        overlay = co_await open_image(context, top);
    else
        overlay = created.error();
    ::unlink(path.c_str());
    co_return std::move(overlay);
}

// The image with everything the command line says about it.
Task<Result<std::unique_ptr<Image>>> open_source(BlockContext& context, NbdArguments const& arguments) {
    OpenOptions how = arguments.open;
    how.quiet_probe = true; // said below, without the program's name, as QEMU does
    Result<std::unique_ptr<Image>> opened(Error("", 0));
    if (arguments.snapshot)
        opened = co_await open_overlay(context, how);
    else
        opened = co_await open_image(context, how);
    if (!opened.ok()) {
        // The lock's error stands for itself; the others say what was being done.
        std::string text = opened.error().message();
        if (!arguments.open.filename.empty() && !text.starts_with("Could not open"))
            text = "'" + arguments.open.filename + "': " + text;
        co_return Error(fmt::format("Failed to blk_new_open {}{}",
                                    text.starts_with("'") ? "" : "'" + arguments.image + "': ", text));
    }
    std::unique_ptr<Image> image = std::move(opened).value();
    if (image->probed_raw() && !image->read_only())
        fmt::print(stderr, "{}\n", raw_probe_warning(arguments.open.filename));
    if (!arguments.load_snapshot.empty()) {
        Snapshots* snapshots = image->capabilities().snapshots;
        Result<void> loaded;
        if (snapshots)
            loaded = co_await snapshots->load_read_only(arguments.load_snapshot);
        else
            loaded = error("Block format '{}' does not support internal snapshots", image->format_name());
        if (!loaded.ok()) {
            Result<void> ignored = co_await close_image(std::move(image));
            (void)ignored;
            co_return loaded.error().with_prefix("Failed to load snapshot");
        }
    }
    co_return std::move(image);
}

Task<Result<nbd::ExportSettings>> export_settings(Image& image, NbdArguments const& arguments) {
    nbd::ExportSettings settings;
    settings.name = arguments.export_name;
    settings.description = arguments.description;
    settings.offset = arguments.offset;
    settings.read_only = arguments.open.read_only;
    settings.multi_conn = arguments.shared != 1;
    settings.allocation_depth = arguments.allocation_depth;
    settings.bitmaps = arguments.bitmaps;
    if (settings.offset > image.size_bytes()) co_return error("Invalid offset '{}'", settings.offset);
    if (arguments.partition) {
        CO_TRY_ASSIGN(std::vector<Partition> partitions, co_await read_partitions(image));
        auto found = std::ranges::find(partitions, *arguments.partition, &Partition::number);
        if (found == partitions.end()) {
            std::string known;
            for (Partition const& one : partitions) known += (known.empty() ? "" : ", ") + std::to_string(one.number);
            co_return error("Could not find partition {}{}", *arguments.partition,
                            known.empty() ? "; '" + arguments.image + "' has no partition table"
                                          : "; there are: " + known);
        }
        settings.offset = found->offset;
        settings.size = found->length;
    }
    co_return std::move(settings);
}

// Sockets handed over by socket activation (LISTEN_PID, LISTEN_FDS).
Result<std::vector<UniqueFd>> activation_sockets() {
    std::vector<UniqueFd> sockets;
    char const *pid = std::getenv("LISTEN_PID"), *count = std::getenv("LISTEN_FDS");
    if (!pid || !count || std::atol(pid) != long(::getpid())) return sockets;
    constexpr int first = 3, most = 64;
    int given = std::atoi(count);
    if (given <= 0) return sockets;
    if (given > most) return error("More than {} sockets by socket activation", most);
    ::unsetenv("LISTEN_PID");
    ::unsetenv("LISTEN_FDS");
    for (int fd = first; fd < first + given; ++fd) {
        int listening = 0;
        socklen_t size = sizeof listening;
        if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening)
            return error("Descriptor {} of the socket activation is no listening socket", fd);
        ::fcntl(fd, F_SETFD, FD_CLOEXEC);
        ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
        sockets.emplace_back(fd);
    }
    return sockets;
}

Result<void> start_listening(nbd::Server& server, NbdArguments const& arguments) {
    std::vector<UniqueFd> sockets = TRY(activation_sockets());
    if (!sockets.empty() && arguments.address_given)
        return error("A socket address (-k, -p, -b) can't be used together with socket activation");
    if (sockets.empty()) {
        int backlog = arguments.shared == 0 ? SOMAXCONN : std::min<int>(int(arguments.shared), SOMAXCONN);
        sockets.push_back(TRY(nbd::listen_socket(arguments.address, std::max(backlog, 1))));
    }
    for (UniqueFd& socket : sockets) server.listen(std::move(socket));
    return {};
}

// Serves /dev/nbdN: one end of a socket pair is ours, the other, once its handshake is over, the kernel's.
class KernelSession {
public:
    Result<void> start(Tool& tool, nbd::Server& server, std::string const& path, std::string const& export_name,
                       std::function<void()> ended) {
        path_ = path;
        device_ = TRY(open_nbd_device(path));
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
            return error_from_errno(errno, "Could not make a socket pair");
        UniqueFd ours(ends[0]);
        socket_.reset(ends[1]);
        server.accept(std::move(ours));
        UniqueFd handshake_end(::dup(socket_.get()));
        nbd::Connection connection(std::make_unique<nbd::SocketStream>(tool.loop(), std::move(handshake_end)));
        nbd::ClientSettings settings;
        settings.export_name = export_name;
        settings.structured = false; // the kernel knows simple replies only
        nbd::ClientHandshake handshake(connection, settings);
        nbd::ExportInfo info = TRY(tool.run(handshake.choose()));
        ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) & ~O_NONBLOCK);
        TRY(configure_nbd_device(device_.get(), socket_.get(), info));
        if (std::uint64_t rest = info.size_bytes % 512)
            tool.warn(fmt::format("the last {} bytes are not a whole sector and cannot be seen on {}", rest, path_));
        EventLoop& loop = tool.loop();
        thread_ = std::thread([this, &loop, ended = std::move(ended)] {
            result_ = run_nbd_device(device_.get(), path_);
            loop.post(ended);
        });
        return {};
    }
    Result<void> finish() {
        if (!thread_.joinable()) return {};
        Result<void> ignored = disconnect_nbd_device(path_); // over already, unless a signal ends us
        (void)ignored;
        thread_.join();
        return result_;
    }

private:
    std::string path_;
    UniqueFd device_, socket_;
    std::thread thread_;
    Result<void> result_; // written by thread_, read after it is joined
};

Result<void> write_pid_file(std::string const& path) {
    if (path.empty()) return {};
    std::ofstream file(path);
    file << ::getpid() << "\n";
    file.close();
    if (!file) return error_from_errno(errno, "Could not write the PID file '{}'", path);
    return {};
}

Result<void> serve_image(Tool& tool, nbd::TlsStore const& tls, NbdArguments const& arguments, Image& image,
                         Daemon* daemon) {
    bool stopping = false;
    StopSignals signals(tool.loop(), [&] { stopping = true; });
    nbd::ServerSettings settings;
    settings.max_clients = arguments.shared;
    if (!arguments.tls_creds.empty()) {
        auto credentials = tls.find(arguments.tls_creds, true);
        if (!credentials.ok()) return credentials.error().with_prefix("Failed to get TLS creds");
        settings.credentials = credentials.value();
    }
    if (!arguments.persistent) settings.on_last_client_left = [&] { stopping = true; };
    if (arguments.verbose) settings.on_client_error = [&tool](std::string_view text) { tool.report(text); };
    nbd::Server server(tool.loop(), std::move(settings));
    nbd::ExportSettings offered = TRY(tool.run(export_settings(image, arguments)));
    server.add_export(TRY(nbd::Export::create(image, std::move(offered))));
    KernelSession kernel;
    Result<void> started;
    if (arguments.device.empty())
        started = start_listening(server, arguments);
    else
        started = kernel.start(tool, server, arguments.device, arguments.export_name, [&] { stopping = true; });
    if (started.ok()) started = write_pid_file(arguments.pid_file);
    if (started.ok()) {
        if (daemon) daemon->ready();
        while (!stopping) tool.loop().run_once(-1);
    }
    Result<void> kernel_result = kernel.finish();
    tool.run(server.stop());
    if (!arguments.address.path.empty() && started.ok()) ::unlink(arguments.address.path.c_str());
    if (!arguments.pid_file.empty() && started.ok()) ::unlink(arguments.pid_file.c_str());
    return started.ok() ? kernel_result : started;
}

} // namespace

int serve(Tool& tool, nbd::TlsStore const& tls, NbdArguments const& arguments, Daemon* daemon) {
    if (!arguments.device.empty()) { // before the image is touched: without the module nothing can come of it
        auto device = open_nbd_device(arguments.device);
        if (!device.ok()) return tool.fail(device.error());
    }
    auto opened = tool.run(open_source(tool.context(), arguments));
    if (!opened.ok()) return tool.fail(opened.error());
    std::unique_ptr<Image> image = std::move(opened).value();
    Result<void> served = serve_image(tool, tls, arguments, *image, daemon);
    Result<void> closed = tool.run(close_image(std::move(image)));
    if (!served.ok()) return tool.fail(served.error());
    return closed.ok() ? 0 : tool.fail(closed.error());
}

} // namespace vmm::block
