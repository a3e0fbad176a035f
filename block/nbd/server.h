// Server: NBD exports for any number of clients on the EventLoop.
#pragma once
#include "block/core/sync.h"
#include "block/nbd/export.h"
#include "block/nbd/socket_stream.h"
#include "block/nbd/tls.h"

#include <functional>
#include <memory>
#include <set>
#include <vector>

namespace vmm::block::nbd {

class Session;

struct ServerSettings {
    unsigned max_clients = 0;                          // 0: no limit. Further ones wait in the listen queue.
    std::shared_ptr<TlsCredentials const> credentials; // not null: clients must start TLS before anything else
    Nanoseconds handshake_timeout = 10 * nanoseconds_per_second; // from connecting to the chosen export
    // Called when a client that had chosen an export has left and no such client remains.
    std::function<void()> on_last_client_left;
    // Told why a client was dropped (`-v`).
    std::function<void(std::string_view)> on_client_error;
};

// Loop thread only. stop() must have finished before destruction.
class Server {
public:
    // `loop` must outlive the server.
    Server(EventLoop& loop, ServerSettings settings) : loop_(loop), settings_(std::move(settings)) {}
    ~Server();
    Server(Server const&) = delete;
    Server& operator=(Server const&) = delete;

    void add_export(std::unique_ptr<Export> one) { exports_.push_back(std::move(one)); }
    std::vector<std::unique_ptr<Export>> const& exports() const { return exports_; }
    // Null: no export of that name.
    Export* find(std::string_view name) const;

    // Accepts clients on a listening socket until stop().
    void listen(UniqueFd socket);
    // Serves one connected socket.
    void accept(UniqueFd connection);
    std::size_t clients() const { return sessions_.size(); }
    // Ends listening and all sessions; requests in flight finish first.
    Task<void> stop();

    EventLoop& loop() const { return loop_; }
    ServerSettings const& settings() const { return settings_; }

private:
    void watch_listeners(bool on);
    void accept_from(int listener);
    bool full() const { return settings_.max_clients != 0 && sessions_.size() >= settings_.max_clients; }
    void session_ended(std::shared_ptr<Session> const& session);

    EventLoop& loop_;
    ServerSettings settings_;
    std::vector<std::unique_ptr<Export>> exports_;
    std::vector<UniqueFd> listeners_;
    bool listening_ = false, stopping_ = false;
    std::unique_ptr<Deadline> retry_accept_; // after running out of descriptors
    std::set<std::shared_ptr<Session>> sessions_;
    AsyncCondition session_left_;
};

} // namespace vmm::block::nbd
