#include "ui/chardev/socket_stream.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::ui {

SocketStream::SocketStream(EventLoop& loop, CharConfig const& config)
    : loop_(loop), config_(config), pump_(loop, {.input = [this](auto bytes) { return receive(bytes); },
                                                 .room =
                                                     [this] {
                                                         if (frontend_) frontend_->writable();
                                                     },
                                                 .end_of_input = [this] { disconnect(); },
                                                 .broken = [this] { disconnect(); },
                                                 .hold_input = {}}) {}

SocketStream::~SocketStream() {
    *alive_ = false;
    for (UniqueFd const* watched : {&listener_, &connecting_, &retry_})
        if (*watched) loop_.unwatch(watched->get());
    if (bound_path_) unlink(config_.path.c_str());
}

Result<UniqueFd> SocketStream::open_unix() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (config_.path.size() >= sizeof address.sun_path)
        return error("UNIX socket path '{}' is too long\nPath must be less than {} bytes", config_.path,
                     sizeof address.sun_path);
    std::memcpy(address.sun_path, config_.path.data(), config_.path.size());
    auto const* generic = reinterpret_cast<sockaddr const*>(&address);
    if (!config_.server) {
        auto connection = start_connecting(AF_UNIX, 0, generic, sizeof address);
        if (!connection) return error("Failed to connect to '{}': {}", config_.path, connection.error().message());
        return connection;
    }
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return error_from_errno(errno, "Failed to create Unix socket");
    unlink(config_.path.c_str()); // left behind by an earlier run
    if (bind(fd.get(), generic, sizeof address) < 0)
        return error_from_errno(errno, "Failed to bind socket to {}", config_.path);
    bound_path_ = true;
    if (listen(fd.get(), 1) < 0) return error_from_errno(errno, "Failed to listen on socket");
    return fd;
}

Result<UniqueFd> SocketStream::open_tcp() {
    addrinfo hints{}, *list = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = config_.server ? AI_PASSIVE : 0;
    char const* host = !config_.host.empty() ? config_.host.c_str() : config_.server ? nullptr : "localhost";
    int failure = getaddrinfo(host, config_.port.c_str(), &hints, &list);
    if (failure != 0)
        return error("address resolution failed for {}:{}: {}", config_.host, config_.port, gai_strerror(failure));
    std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, freeaddrinfo);
    int last_errno = 0;
    for (addrinfo* item = list; item; item = item->ai_next) {
        if (!config_.server) {
            auto connection = start_connecting(item->ai_family, item->ai_protocol, item->ai_addr, item->ai_addrlen);
            if (connection) return connection;
            last_errno = connection.error().errno_value();
            continue;
        }
        UniqueFd fd(socket(item->ai_family, item->ai_socktype | SOCK_CLOEXEC, item->ai_protocol));
        int on = 1;
        if (!fd) continue;
        setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd.get(), item->ai_addr, item->ai_addrlen) == 0 && listen(fd.get(), 1) == 0) return fd;
        last_errno = errno;
    }
    return error_from_errno(last_errno, "Failed to {} '{}:{}'",
                            config_.server ? "find an available port on" : "connect to",
                            config_.host.empty() ? "localhost" : config_.host, config_.port);
}

// A connected socket; with reconnect one that may still be on its way.
Result<UniqueFd> SocketStream::start_connecting(int family, int protocol, sockaddr const* address,
                                                socklen_t size) const {
    int const blocking = config_.reconnect_seconds != 0 ? SOCK_NONBLOCK : 0;
    UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | blocking, protocol));
    if (!fd || (connect(fd.get(), address, size) < 0 && errno != EINPROGRESS)) {
        int const why = errno;
        return Error(std::strerror(why), why);
    }
    return fd;
}

void SocketStream::try_to_connect() {
    auto fd = config_.kind == CharKind::unix_ ? open_unix() : open_tcp();
    if (!fd) return retry_later(fd.error().message());
    connecting_ = std::move(*fd);
    loop_.watch(connecting_.get(), Ready::write, [this](Ready) { connection_decided(); });
}

void SocketStream::connection_decided() {
    int why = 0;
    socklen_t size = sizeof why;
    getsockopt(connecting_.get(), SOL_SOCKET, SO_ERROR, &why, &size);
    loop_.unwatch(connecting_.get());
    UniqueFd socket = std::move(connecting_);
    if (why != 0) return retry_later(fmt::format("Failed to connect: {}", std::strerror(why)));
    fcntl(socket.get(), F_SETFL, fcntl(socket.get(), F_GETFL) & ~O_NONBLOCK);
    failure_told_ = false;
    serve(std::move(socket));
}

void SocketStream::retry_later(std::string const& why) {
    if (!std::exchange(failure_told_, true) && retrying_) retrying_(why);
    itimerspec const when{.it_interval = {}, .it_value = {.tv_sec = time_t(config_.reconnect_seconds), .tv_nsec = 0}};
    retry_ = UniqueFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!retry_ || timerfd_settime(retry_.get(), 0, &when, nullptr) < 0) return;
    loop_.watch(retry_.get(), Ready::read, [this](Ready) {
        loop_.unwatch(retry_.get());
        retry_.reset();
        try_to_connect();
    });
}

Result<std::unique_ptr<SocketStream>> SocketStream::create(EventLoop& loop, CharConfig const& config, Waiting waiting) {
    std::unique_ptr<SocketStream> stream(new SocketStream(loop, config));
    if (config.reconnect_seconds != 0) {
        stream->retrying_ = std::move(waiting.retrying);
        stream->try_to_connect();
        return stream;
    }
    auto fd = config.kind == CharKind::unix_ ? stream->open_unix() : stream->open_tcp();
    if (!fd) return fd.error();
    if (!config.server) {
        stream->serve(std::move(*fd));
        return stream;
    }
    stream->listener_ = std::move(*fd);
    loop.watch(stream->listener_.get(), Ready::read, [raw = stream.get()](Ready) { raw->accept_client(); });
    if (config.wait) {
        if (waiting.announce) waiting.announce(stream->describe());
        while (!stream->connected_) {
            if (waiting.give_up && waiting.give_up()) return error("interrupted while waiting for a connection");
            loop.run_once(-1);
        }
    }
    return stream;
}

unsigned SocketStream::bound_port() const {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (!listener_ || getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) < 0) return 0;
    if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port);
    if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6*>(&address)->sin6_port);
    return 0;
}

std::string SocketStream::describe() const {
    std::string text = connected_ ? "" : "disconnected:";
    if (config_.kind == CharKind::unix_)
        text += "unix:" + config_.path;
    else
        text += fmt::format("{}:{}:{}", config_.telnet ? "telnet" : "tcp", config_.host,
                            config_.server ? std::to_string(bound_port()) : config_.port);
    return text + (config_.server ? ",server=on" : "");
}

void SocketStream::accept_client() {
    UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) return;
    loop_.unwatch(listener_.get()); // the next one waits its turn
    serve(std::move(client));
}

void SocketStream::serve(UniqueFd socket) {
    int on = 1;
    if (config_.nodelay) setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    UniqueFd out(fcntl(socket.get(), F_DUPFD_CLOEXEC, 3));
    telnet_ = {};
    decoded_.clear();
    pump_.attach({std::move(socket), NoBlock::per_call}, {std::move(out), NoBlock::per_call});
    connected_ = true;
    if (config_.telnet) pump_.write(TelnetFilter::greeting());
    if (frontend_) frontend_->event(CharEvent::opened);
    if (frontend_) frontend_->writable();
}

void SocketStream::disconnect() {
    if (!std::exchange(connected_, false)) return;
    pump_.detach();
    if (listener_) loop_.watch(listener_.get(), Ready::read, [this](Ready) { accept_client(); });
    if (frontend_) frontend_->event(CharEvent::closed);
    if (frontend_) frontend_->writable();
    if (config_.reconnect_seconds != 0) retry_later("the other side has closed the connection");
}

bool SocketStream::deliver_decoded() {
    while (!decoded_.empty()) {
        std::size_t n = frontend_ ? frontend_->receive(decoded_) : 0;
        if (n == 0) return false;
        decoded_.erase(decoded_.begin(), decoded_.begin() + std::ptrdiff_t(n));
    }
    return true;
}

std::size_t SocketStream::receive(std::span<std::uint8_t const> bytes) {
    if (!config_.telnet) return frontend_ ? frontend_->receive(bytes) : 0;
    if (!deliver_decoded()) return 0;
    unsigned breaks = 0;
    decoded_ = telnet_.decode(bytes, breaks);
    for (; breaks != 0 && frontend_; --breaks) frontend_->event(CharEvent::serial_break);
    deliver_decoded(); // what stays is offered again with the next input or accept_input()
    return bytes.size();
}

std::size_t SocketStream::write(std::span<std::uint8_t const> bytes) {
    if (!config_.telnet) return pump_.write(bytes);
    // IAC in the data is doubled; the pair goes whole or not at all.
    constexpr std::uint8_t doubled[] = {255, 255};
    std::size_t done = 0;
    while (done < bytes.size()) {
        auto rest = bytes.subspan(done);
        std::size_t plain = std::size_t(std::ranges::find(rest, std::uint8_t(255)) - rest.begin());
        if (plain != 0) {
            std::size_t n = pump_.write(rest.first(plain));
            done += n;
            if (n < plain) break;
            continue;
        }
        if (!pump_.write_whole(doubled)) break;
        ++done;
    }
    return done;
}

void SocketStream::accept_input() {
    loop_.post([this, alive = alive_] {
        if (*alive && deliver_decoded()) pump_.resume_input();
    });
}

void SocketStream::set_frontend(CharFrontend* frontend) {
    frontend_ = frontend;
    if (!frontend) return;
    loop_.post([this, alive = alive_] {
        if (*alive && frontend_ && connected_) frontend_->event(CharEvent::opened);
    });
    accept_input();
}

} // namespace vmm::ui
