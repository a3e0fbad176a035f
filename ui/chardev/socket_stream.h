// SocketStream: a unix-domain or TCP socket, as client or server, plain or telnet. A server serves one client at a time
// and takes the next when that one has gone.
#pragma once
#include "ui/chardev/char_stream.h"
#include "ui/chardev/fd_pump.h"
#include "ui/chardev/telnet.h"
#include "vmm/options/char_config.h"

#include <sys/socket.h>

#include <memory>
#include <string>

namespace vmm::ui {

// Loop thread, except what CharStream says is for any. Output while nobody is connected is swallowed.
class SocketStream final : public CharStream {
public:
    // While a server with wait=on waits for its first client.
    struct Waiting {
        std::function<void(std::string const&)> announce; // gets describe()
        std::function<bool()> give_up;                    // asked after each event: the user wants to leave
        std::function<void(std::string const&)> retrying; // with reconnect: why it failed, when it did not before
    };
    // Binds or connects. With server and wait it runs the loop until a client has come; with reconnect it returns at
    // once and connects from the loop, again and again. (Names are resolved on the spot each time.)
    static Result<std::unique_ptr<SocketStream>> create(EventLoop& loop, CharConfig const& config, Waiting waiting);
    ~SocketStream() override;

    // The port a TCP server got, for port 0; 0 otherwise.
    unsigned bound_port() const;
    // "unix:/tmp/s,server=on" as `info chardev` shows it.
    std::string describe() const;

    std::size_t write(std::span<std::uint8_t const> bytes) override;
    void accept_input() override;
    void set_frontend(CharFrontend* frontend) override;
    void send_break(bool) override {}
    void drain() override { pump_.drain(nanoseconds_per_second / 2); }

private:
    SocketStream(EventLoop& loop, CharConfig const& config);
    Result<void> open();
    Result<UniqueFd> open_unix();
    Result<UniqueFd> open_tcp();
    Result<UniqueFd> start_connecting(int family, int protocol, sockaddr const* address, socklen_t size) const;
    void try_to_connect();
    void connection_decided();
    void retry_later(std::string const& why);
    void accept_client();
    void serve(UniqueFd socket);
    void disconnect();
    std::size_t receive(std::span<std::uint8_t const> bytes);
    bool deliver_decoded();

    EventLoop& loop_;
    CharConfig config_;
    UniqueFd listener_;
    bool bound_path_ = false; // the unix socket's file is ours to remove
    bool connected_ = false;
    std::function<void(std::string const&)> retrying_;
    UniqueFd connecting_; // reconnect: the connection in the making
    UniqueFd retry_;      // reconnect: a timerfd, for a time that does not stop with the guest
    bool failure_told_ = false;
    TelnetFilter telnet_;
    std::vector<std::uint8_t> decoded_; // telnet data not yet taken by the front end
    CharFrontend* frontend_ = nullptr;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    FdPump pump_;
};

} // namespace vmm::ui
