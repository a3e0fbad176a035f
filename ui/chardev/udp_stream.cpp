#include "ui/chardev/udp_stream.h"

#include <netdb.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace vmm::ui {

namespace {
using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Result<AddressList> resolve(std::string const& host, std::string const& port, int family, int flags) {
    addrinfo hints{}, *list = nullptr;
    hints.ai_family = family;
    hints.ai_socktype = SOCK_DGRAM;
    hints.ai_flags = flags;
    int failure = getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &list);
    if (failure != 0) return error("address resolution failed for {}:{}: {}", host, port, gai_strerror(failure));
    return AddressList(list, freeaddrinfo);
}
} // namespace

Result<std::unique_ptr<UdpStream>> UdpStream::create(EventLoop& loop, CharConfig const& config) {
    std::unique_ptr<UdpStream> stream(new UdpStream(loop, config));
    TRY(stream->open());
    loop.watch(stream->fd_.get(), Ready::read, [raw = stream.get()](Ready) { raw->receive(); });
    return stream;
}

Result<void> UdpStream::open() {
    AddressList remote =
        TRY(resolve(config_.host.empty() ? "localhost" : config_.host, config_.port, AF_UNSPEC, AI_ADDRCONFIG));
    std::memcpy(&remote_, remote->ai_addr, remote->ai_addrlen);
    remote_size_ = remote->ai_addrlen;
    fd_ = UniqueFd(socket(remote->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd_) return error_from_errno(errno, "Failed to create a UDP socket");
    AddressList local = TRY(resolve(config_.local_host, config_.local_port.empty() ? "0" : config_.local_port,
                                    remote->ai_family, AI_PASSIVE));
    if (bind(fd_.get(), local->ai_addr, local->ai_addrlen) < 0)
        return error_from_errno(errno, "Failed to bind the UDP socket to '{}:{}'", config_.local_host,
                                config_.local_port);
    return {};
}

UdpStream::~UdpStream() {
    *alive_ = false;
    if (fd_) loop_.unwatch(fd_.get());
}

unsigned UdpStream::bound_port() const {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) < 0) return 0;
    return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                               : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

std::string UdpStream::describe() const { return fmt::format("udp:{}:{}", config_.host, config_.port); }

std::size_t UdpStream::write(std::span<std::uint8_t const> bytes) {
    [[maybe_unused]] ssize_t sent = sendto(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                                           reinterpret_cast<sockaddr const*>(&remote_), remote_size_);
    return bytes.size();
}

void UdpStream::receive() {
    std::array<std::uint8_t, 65536> datagram;
    ssize_t got = recv(fd_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT);
    if (got <= 0) return; // nothing after all, an empty one, or the network's word on one we sent
    held_.assign(datagram.begin(), datagram.begin() + got);
    offer();
    if (!held_.empty()) loop_.unwatch(fd_.get());
}

void UdpStream::offer() {
    if (!frontend_ || held_.empty()) return;
    std::size_t taken = frontend_->receive(held_);
    held_.erase(held_.begin(), held_.begin() + std::ptrdiff_t(taken));
}

void UdpStream::accept_input() {
    loop_.post([this, alive = alive_] {
        if (!*alive || held_.empty()) return;
        offer();
        if (held_.empty()) loop_.watch(fd_.get(), Ready::read, [this](Ready) { receive(); });
    });
}

void UdpStream::set_frontend(CharFrontend* frontend) {
    frontend_ = frontend;
    if (!frontend) return;
    loop_.post([this, alive = alive_] {
        if (*alive && frontend_) frontend_->event(CharEvent::opened);
    });
    accept_input();
}

} // namespace vmm::ui
