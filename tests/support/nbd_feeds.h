// Feeding bytes to an NBD server or client as a hostile peer would: shared by unit tests and fuzz targets.
#pragma once
#include "block/core/image.h"
#include "block/core/task.h"
#include "block/nbd/client_connection.h"
#include "block/nbd/server.h"
#include "block/nbd/wire_reader.h"

#include <sys/socket.h>

#include <string>
#include <vector>

namespace vmm::block::nbd {

// How far the feeder itself brings the handshake before the bytes begin.
enum class FeedFrom : std::uint8_t { first_byte, options, requests, structured_requests };

inline void append_option(std::vector<std::uint8_t>& to, Option which, ConstBytes data) {
    append_wire(
        to, OptionHeader{.magic = option_magic, .option = std::uint32_t(which), .length = std::uint32_t(data.size())});
    to.insert(to.end(), data.begin(), data.end());
}

// What a well-behaved client says up to `from`; the export's name is empty.
inline std::vector<std::uint8_t> client_prefix(FeedFrom from) {
    std::vector<std::uint8_t> out;
    if (from == FeedFrom::first_byte) return out;
    append_wire(out, be32(flag_fixed_newstyle | flag_no_zeroes));
    if (from == FeedFrom::options) return out;
    if (from == FeedFrom::structured_requests) {
        append_option(out, Option::structured_reply, {});
        std::vector<std::uint8_t> query;
        append_wire(query, be32(0u));
        append_wire(query, be32(1u));
        append_wire(query, be32(15u));
        append_text(query, "base:allocation");
        append_option(out, Option::set_meta_context, query);
    }
    std::vector<std::uint8_t> go(sizeof(be32) + sizeof(be16));
    append_option(out, Option::go, go);
    return out;
}

// What a well-behaved server says up to the transmission phase to ClientHandshake::choose.
inline std::vector<std::uint8_t> server_prefix(FeedFrom from, std::uint64_t size) {
    std::vector<std::uint8_t> out;
    auto reply = [&](Option to, OptionReply kind, std::vector<std::uint8_t> const& data = {}) {
        append_wire(out, OptionReplyHeader{.magic = option_reply_magic,
                                           .option = std::uint32_t(to),
                                           .reply = std::uint32_t(kind),
                                           .length = std::uint32_t(data.size())});
        out.insert(out.end(), data.begin(), data.end());
    };
    if (from == FeedFrom::first_byte) return out;
    append_wire(out, ServerHello{init_magic, option_magic, std::uint16_t(flag_fixed_newstyle | flag_no_zeroes)});
    if (from == FeedFrom::options) return out;
    bool structured = from == FeedFrom::structured_requests;
    reply(Option::structured_reply, structured ? OptionReply::ack : OptionReply::err_unsup);
    if (structured) {
        std::vector<std::uint8_t> context;
        append_wire(context, be32(0u));
        append_text(context, "base:allocation");
        reply(Option::set_meta_context, OptionReply::meta_context, context);
        reply(Option::set_meta_context, OptionReply::ack);
    }
    std::vector<std::uint8_t> info;
    append_wire(info, InfoExport{0, size, std::uint16_t(flag_has_flags | flag_send_flush | flag_send_write_zeroes)});
    reply(Option::go, OptionReply::info, info);
    reply(Option::go, OptionReply::ack);
    return out;
}

// Writes all that fits without blocking, closes that direction, and reads what comes until the other side closes.
class HostilePeer {
public:
    HostilePeer(EventLoop& loop, UniqueFd socket, std::vector<std::uint8_t> bytes)
        : loop_(loop), socket_(std::move(socket)), bytes_(std::move(bytes)) {
        loop_.watch(socket_.get(), Ready::read_write, [this](Ready) { pump(); });
    }
    ~HostilePeer() { loop_.unwatch(socket_.get()); }
    bool closed() const { return closed_; }
    std::vector<std::uint8_t> const& received() const { return received_; }

private:
    void pump() {
        if (sent_ < bytes_.size()) {
            ssize_t n =
                ::send(socket_.get(), bytes_.data() + sent_, bytes_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) sent_ += std::size_t(n);
            if (n < 0 && errno != EAGAIN) sent_ = bytes_.size();
        }
        if (sent_ == bytes_.size() && !finished_) {
            finished_ = true;
            ::shutdown(socket_.get(), SHUT_WR);
        }
        std::uint8_t buffer[65536];
        ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
        if (got > 0) received_.insert(received_.end(), buffer, buffer + got);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            closed_ = true;
            loop_.unwatch(socket_.get());
        }
    }

    EventLoop& loop_;
    UniqueFd socket_;
    std::vector<std::uint8_t> bytes_, received_;
    std::size_t sent_ = 0;
    bool finished_ = false, closed_ = false;
};

inline std::pair<UniqueFd, UniqueFd> socket_pair() {
    int ends[2] = {-1, -1};
    VMM_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// A server of `image` gets prefix and bytes from a client that then stops sending. Returns what it answered.
inline std::vector<std::uint8_t> feed_server(EventLoop& loop, Image& image, FeedFrom from, ConstBytes bytes) {
    Server server(loop, ServerSettings{});
    server.add_export(Export::create(image, ExportSettings{}).value());
    std::vector<std::uint8_t> all = client_prefix(from);
    all.insert(all.end(), bytes.begin(), bytes.end());
    auto [ours, theirs] = socket_pair();
    server.accept(std::move(theirs));
    HostilePeer peer(loop, std::move(ours), std::move(all));
    while (server.clients() > 0 || !peer.closed()) loop.run_once(-1);
    run_blocking(loop, server.stop());
    return peer.received();
}

// One task that uses a connection as a device does.
inline Task<Result<void>> use_connection(EventLoop& loop, UniqueFd socket) {
    ClientSettings settings;
    CO_TRY_ASSIGN(std::shared_ptr<ClientConnection> connection,
                  co_await ClientConnection::open(loop, std::move(socket), settings));
    std::vector<std::uint8_t> data(4096);
    iovec part{data.data(), data.size()};
    std::vector<Extent> extents;
    ClientRequest read, status;
    read.length = 4096;
    read.to = std::span<iovec const>(&part, 1);
    status.command = Command::block_status;
    status.length = 4096;
    status.extents = &extents;
    Result<void> result;
    for (int i = 0; i < 4 && result.ok(); ++i) {
        result = co_await connection->call(read);
        if (result.ok() && !connection->info().contexts.empty()) result = co_await connection->call(status);
    }
    connection->close();
    co_return result;
}

// A client gets prefix and bytes from a server that then closes.
inline Result<void> feed_client(EventLoop& loop, FeedFrom from, ConstBytes bytes) {
    std::vector<std::uint8_t> all = server_prefix(from, 1 << 20);
    all.insert(all.end(), bytes.begin(), bytes.end());
    auto [ours, theirs] = socket_pair();
    HostilePeer peer(loop, std::move(ours), std::move(all));
    return run_blocking(loop, use_connection(loop, std::move(theirs)));
}

} // namespace vmm::block::nbd
