// UdpStream: datagrams to one address and from anybody at another ("udp"): nobody is connected, and what is lost is
// lost.
#pragma once
#include "ui/chardev/char_stream.h"
#include "vmm/base/event_loop.h"
#include "vmm/options/char_config.h"

#include <sys/socket.h>

#include <memory>
#include <string>
#include <vector>

namespace vmm::ui {

// Loop thread, except what CharStream says is for any.
class UdpStream final : public CharStream {
public:
    // Errors: addresses that do not resolve; a local port that is taken.
    static Result<std::unique_ptr<UdpStream>> create(EventLoop& loop, CharConfig const& config);
    ~UdpStream() override;

    // The port datagrams are received at.
    unsigned bound_port() const;
    // "udp:HOST:PORT" as `info chardev` shows it.
    std::string describe() const;

    // One datagram for each call. Never short: what the host cannot send is lost, as in the network.
    std::size_t write(std::span<std::uint8_t const> bytes) override;
    void accept_input() override;
    void set_frontend(CharFrontend* frontend) override;
    void send_break(bool) override {}
    void drain() override {}

private:
    UdpStream(EventLoop& loop, CharConfig const& config) : loop_(loop), config_(config) {}
    Result<void> open();
    void receive();
    void offer();

    EventLoop& loop_;
    CharConfig config_;
    UniqueFd fd_;
    sockaddr_storage remote_{};
    socklen_t remote_size_ = 0;
    CharFrontend* frontend_ = nullptr;
    std::vector<std::uint8_t> held_; // received, not yet taken; no further datagram is read until it is
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace vmm::ui
