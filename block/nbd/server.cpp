#include "block/nbd/server.h"

#include "block/nbd/server_session.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace vmm::block::nbd {

Server::~Server() { VMM_ASSERT(sessions_.empty() && !listening_); }

Export* Server::find(std::string_view name) const {
    auto found = std::ranges::find_if(exports_, [&](auto const& one) { return one->name() == name; });
    return found == exports_.end() ? nullptr : found->get();
}

void Server::listen(UniqueFd socket) {
    watch_listeners(false);
    listeners_.push_back(std::move(socket));
    watch_listeners(!full() && !stopping_);
}

void Server::watch_listeners(bool on) {
    if (on == listening_) return;
    listening_ = on;
    for (UniqueFd const& socket : listeners_) {
        int fd = socket.get();
        if (on)
            loop_.watch(fd, Ready::read, [this, fd](Ready) { accept_from(fd); });
        else
            loop_.unwatch(fd);
    }
}

void Server::accept_from(int listener) {
    if (full() || stopping_) return watch_listeners(false);
    UniqueFd connection(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection) return accept(std::move(connection));
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
    // Out of descriptors or memory: the socket stays readable, so look again later rather than at once.
    watch_listeners(false);
    retry_accept_ =
        std::make_unique<Deadline>(loop_, nanoseconds_per_second, [this] { watch_listeners(!full() && !stopping_); });
}

void Server::accept(UniqueFd connection) {
    auto session = std::make_shared<Session>(*this, std::move(connection));
    sessions_.insert(session);
    if (full()) watch_listeners(false);
    spawn(session->run(), [this, session] { session_ended(session); });
}

void Server::session_ended(std::shared_ptr<Session> const& session) {
    sessions_.erase(session);
    if (!full() && !stopping_) watch_listeners(true);
    bool others = std::ranges::any_of(sessions_, [](auto const& one) { return one->negotiated(); });
    if (session->negotiated() && !others && settings_.on_last_client_left) settings_.on_last_client_left();
    session_left_.notify_all();
}

Task<void> Server::stop() {
    stopping_ = true;
    watch_listeners(false);
    retry_accept_.reset();
    listeners_.clear();
    std::vector<std::shared_ptr<Session>> open(sessions_.begin(), sessions_.end());
    for (auto const& session : open) session->shut_down();
    open.clear();
    while (!sessions_.empty()) co_await session_left_.wait();
}

} // namespace vmm::block::nbd
