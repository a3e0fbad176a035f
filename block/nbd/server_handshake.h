// The server's side of the NBD handshake: options until the client has chosen an export or leaves.
#pragma once
#include "block/nbd/connection.h"
#include "block/nbd/server.h"

#include <optional>

namespace vmm::block::nbd {

// What a session was asked for.
struct Negotiated {
    Export* target = nullptr;
    bool structured_replies = false;
    std::vector<unsigned> contexts; // ids for block status
};

class ServerHandshake {
public:
    // All outlive the handshake.
    ServerHandshake(Server& server, Connection& connection) : server_(server), connection_(connection) {}
    // nullopt: the client left in good order. An error ends the connection.
    Task<Result<std::optional<Negotiated>>> run();

private:
    enum class Next : std::uint8_t { option, transmission, leave };
    struct InfoRequest {
        std::string name;
        std::vector<std::uint16_t> types;
    };

    Task<Result<Next>> option(Option which, ConstBytes data);
    Task<Result<void>> reply(Option to, OptionReply kind, ConstBytes data = {});
    Task<Result<void>> reply_error(Option to, OptionReply kind, std::string_view text);
    Task<Result<Next>> export_name(ConstBytes data);
    Task<Result<Next>> list(ConstBytes data);
    Task<Result<Next>> info(Option which, ConstBytes data);
    Task<Result<Next>> start_tls_now(ConstBytes data);
    Task<Result<Next>> meta_context(Option which, ConstBytes data);
    Task<Result<void>> send_info(Option which, Info type, Export& target);

    Server& server_;
    Connection& connection_;
    Negotiated chosen_;
    Export* contexts_for_ = nullptr; // SET_META_CONTEXT holds for this export only
    bool encrypted_ = false, no_zeroes_ = false, fixed_ = false;
};

} // namespace vmm::block::nbd
