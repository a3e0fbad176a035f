#include "block/nbd/socket_stream.h"

#include "vmm/base/port.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <memory>

namespace vmm::block::nbd {

namespace {

bool has(Ready set, Ready bit) { return (std::uint8_t(set) & std::uint8_t(bit)) != 0; }
Ready both(Ready a, Ready b) { return Ready(std::uint8_t(a) | std::uint8_t(b)); }
Error closed_error() { return Error("The connection was shut down", ESHUTDOWN); }

} // namespace

SocketStream::SocketStream(EventLoop& loop, UniqueFd socket) : loop_(loop), socket_(std::move(socket)) {
    int flags = fcntl(socket_.get(), F_GETFL);
    fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
    int one = 1; // not a TCP socket: refused, and not needed
    setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(socket_.get(), SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

SocketStream::~SocketStream() {
    VMM_ASSERT(!reader_ && !writer_);
    set_watch(Ready::none);
}

void SocketStream::set_watch(Ready what) {
    if (what == watched_) return;
    watched_ = what;
    if (what == Ready::none)
        loop_.unwatch(socket_.get());
    else
        loop_.watch(socket_.get(), what, [this](Ready now) { on_ready(now); });
}

void SocketStream::wait(Ready what, std::coroutine_handle<> waiting) {
    std::coroutine_handle<>& slot = what == Ready::read ? reader_ : writer_;
    VMM_ASSERT(!slot);
    slot = waiting;
    if (!has(watched_, what)) set_watch(both(watched_, what));
}

void SocketStream::on_ready(Ready what) {
    std::coroutine_handle<> reader = has(what, Ready::read) ? std::exchange(reader_, {}) : nullptr;
    std::coroutine_handle<> writer = has(what, Ready::write) ? std::exchange(writer_, {}) : nullptr;
    // Interest that fires in vain is dropped; a writer's always is, as sockets are writable nearly all the time.
    if ((has(what, Ready::read) && !reader) || has(watched_, Ready::write))
        set_watch(both(reader || reader_ ? Ready::read : Ready::none, writer_ ? Ready::write : Ready::none));
    // The first one resumed may end the connection, but not this object: its owner waits for both.
    if (writer) writer.resume();
    if (reader) reader.resume();
}

void SocketStream::shut_down() {
    if (shut_down_) return;
    shut_down_ = true;
    set_watch(Ready::none);
    ::shutdown(socket_.get(), SHUT_RDWR);
    std::coroutine_handle<> reader = std::exchange(reader_, {}), writer = std::exchange(writer_, {});
    if (writer) writer.resume();
    if (reader) reader.resume();
}

Task<Result<std::size_t>> SocketStream::read_some(Bytes to) {
    for (;;) {
        if (shut_down_) co_return closed_error();
        ssize_t got = ::recv(socket_.get(), to.data(), to.size(), 0);
        if (got >= 0) co_return std::size_t(got);
        int reason = errno;
        if (reason == EINTR) continue;
        if (reason != EAGAIN) co_return error_from_errno(reason, "Could not read from the connection");
        Awaiter readable{*this, Ready::read};
        co_await readable;
    }
}

Task<Result<void>> SocketStream::write_all(ConstIoSpans from) {
    std::size_t total = from.size_bytes(), done = 0;
    IoVector rest;
    while (done < total) {
        if (shut_down_) co_return closed_error();
        msghdr message{};
        std::span<iovec const> parts = from.parts;
        if (done > 0) {
            rest = IoVector::slice(from.parts, done, total - done);
            parts = rest.const_spans().parts;
        }
        message.msg_iov = const_cast<iovec*>(parts.data());
        message.msg_iovlen = std::min<std::size_t>(parts.size(), IOV_MAX);
        ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
        if (sent >= 0) {
            done += std::size_t(sent);
            continue;
        }
        int reason = errno;
        if (reason == EINTR) continue;
        if (reason != EAGAIN) co_return error_from_errno(reason, "Could not write to the connection");
        Awaiter writable{*this, Ready::write};
        co_await writable;
    }
    co_return Result<void>{};
}

void SocketStream::write_now(ConstBytes from) {
    if (!shut_down_ && !writer_) [[maybe_unused]]
        ssize_t sent = ::send(socket_.get(), from.data(), from.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

std::string SocketAddress::text() const { return path.empty() ? host + ":" + port : path; }

namespace {

struct FreeAddresses {
    void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Result<Addresses> resolve(SocketAddress const& address, bool to_listen) {
    if (Result<void> port = check_port(address.port); !port.ok())
        return port.error().with_prefix(fmt::format("address resolution failed for {}", address.text()));
    addrinfo hints{}, *list = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = to_listen ? AI_PASSIVE : AI_ADDRCONFIG;
    char const* host = address.host.empty() ? (to_listen ? nullptr : "localhost") : address.host.c_str();
    int failed = getaddrinfo(host, address.port.c_str(), &hints, &list);
    if (failed) return error("address resolution failed for {}: {}", address.text(), gai_strerror(failed));
    return Addresses(list);
}

Result<sockaddr_un> unix_address(std::string const& path) {
    sockaddr_un where{};
    where.sun_family = AF_UNIX;
    if (path.size() >= sizeof where.sun_path)
        return Error(fmt::format("UNIX socket path '{}' is too long", path), ENAMETOOLONG);
    path.copy(where.sun_path, path.size());
    return where;
}

Task<Result<void>> connect_fd(EventLoop& loop, int fd, sockaddr const* where, socklen_t length) {
    if (::connect(fd, where, length) == 0) co_return Result<void>{};
    if (errno != EINPROGRESS) co_return Error("", errno);
    struct Writable {
        EventLoop& events;
        int socket;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiting) {
            EventLoop* watching = &events;
            events.watch(socket, Ready::write, [watching, fd = socket, waiting](Ready) {
                watching->unwatch(fd);
                waiting.resume();
            });
        }
        void await_resume() const noexcept {}
    };
    Writable connected{loop, fd};
    co_await connected;
    int failed = 0;
    socklen_t size = sizeof failed;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    if (failed) co_return Error("", failed);
    co_return Result<void>{};
}

} // namespace

Task<Result<UniqueFd>> connect_socket(EventLoop& loop, SocketAddress address) {
    constexpr int flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int last = ENOENT;
    if (!address.path.empty()) {
        CO_TRY_ASSIGN(sockaddr_un where, unix_address(address.path));
        UniqueFd fd(::socket(AF_UNIX, flags, 0));
        Result<void> done =
            co_await connect_fd(loop, fd.get(), reinterpret_cast<sockaddr const*>(&where), sizeof where);
        if (done.ok()) co_return std::move(fd);
        last = done.error().errno_value();
    } else {
        CO_TRY_ASSIGN(Addresses list, resolve(address, false));
        for (addrinfo const* one = list.get(); one; one = one->ai_next) {
            UniqueFd fd(::socket(one->ai_family, flags, one->ai_protocol));
            if (!fd) continue;
            Result<void> done = co_await connect_fd(loop, fd.get(), one->ai_addr, one->ai_addrlen);
            if (done.ok()) co_return std::move(fd);
            last = done.error().errno_value();
        }
    }
    co_return error_from_errno(last, "Failed to connect to '{}'", address.text());
}

Result<UniqueFd> listen_socket(SocketAddress const& address, int backlog) {
    constexpr int flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int last = 0;
    if (!address.path.empty()) {
        sockaddr_un where = TRY(unix_address(address.path));
        struct stat old {};
        if (::stat(address.path.c_str(), &old) == 0 && S_ISSOCK(old.st_mode)) ::unlink(address.path.c_str());
        UniqueFd fd(::socket(AF_UNIX, flags, 0));
        if (fd && ::bind(fd.get(), reinterpret_cast<sockaddr const*>(&where), sizeof where) == 0 &&
            ::listen(fd.get(), backlog) == 0)
            return fd;
        return error_from_errno(errno, "Failed to bind socket to {}", address.path);
    }
    Addresses list = TRY(resolve(address, true));
    for (addrinfo const* one = list.get(); one; one = one->ai_next) {
        UniqueFd fd(::socket(one->ai_family, flags, one->ai_protocol));
        int yes = 1;
        if (fd) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (fd && ::bind(fd.get(), one->ai_addr, one->ai_addrlen) == 0 && ::listen(fd.get(), backlog) == 0) return fd;
        last = errno;
    }
    return error_from_errno(last, "Failed to find an available port for {}", address.text());
}

Deadline::Deadline(EventLoop& loop, Nanoseconds from_now, std::function<void()> callback)
    : loop_(loop), timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
    if (!timer_) return;
    itimerspec when{};
    when.it_value = {from_now / nanoseconds_per_second, std::max<long>(1, from_now % nanoseconds_per_second)};
    timerfd_settime(timer_.get(), 0, &when, nullptr);
    loop_.watch(timer_.get(), Ready::read, [this, call = std::move(callback)](Ready) {
        loop_.unwatch(timer_.get());
        call();
    });
}

Deadline::~Deadline() {
    if (timer_) loop_.unwatch(timer_.get());
}

Task<void> sleep_for(EventLoop& loop, Nanoseconds duration) {
    struct Sleep {
        EventLoop& events;
        Nanoseconds how_long;
        std::unique_ptr<Deadline> deadline = {};
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiting) {
            deadline = std::make_unique<Deadline>(events, how_long, [waiting] { waiting.resume(); });
        }
        void await_resume() const noexcept {}
    };
    Sleep sleep{loop, duration};
    co_await sleep;
}

} // namespace vmm::block::nbd
