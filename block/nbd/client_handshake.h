// The client's side of the NBD handshake: choosing an export, or asking what there is.
#pragma once
#include "block/nbd/connection.h"
#include "block/nbd/protocol.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace vmm::block::nbd {

// What a server tells about an export.
struct ExportInfo {
    std::string name, description;
    std::uint64_t size_bytes = 0;
    std::uint16_t flags = 0;                                                 // NBD_FLAG_*
    std::uint32_t minimum_block = 0, preferred_block = 0, maximum_block = 0; // 0: the server did not say
    bool structured_replies = false;
    // Chosen contexts (connecting) or all there are (listing).
    struct Context {
        std::uint32_t id;
        std::string name;
    };
    std::vector<Context> contexts;
};

struct ClientSettings {
    std::string export_name;
    std::string context = "base:allocation";           // asked for; a server may not have it
    std::shared_ptr<TlsCredentials const> credentials; // not null: TLS or nothing
    std::string tls_hostname;
    bool structured = true; // ask for structured replies
};

class ClientHandshake {
public:
    // `connection` is fresh and outlives the handshake.
    ClientHandshake(Connection& connection, ClientSettings settings)
        : connection_(connection), settings_(std::move(settings)) {}

    // Ends in the transmission phase of settings.export_name. Errors end with "server reported: ..." where it did.
    Task<Result<ExportInfo>> choose();
    // Everything the server lists, then leaves.
    Task<Result<std::vector<ExportInfo>>> list();

    // Most exports and contexts that are read from a server.
    static constexpr std::size_t max_exports = 10000, max_contexts = 1000;

private:
    struct Reply {
        OptionReply kind = OptionReply::ack;
        std::vector<std::uint8_t> data;
        std::string text() const { return {data.begin(), data.end()}; }
    };
    Task<Result<void>> begin();
    Task<Result<void>> send(Option which, ConstBytes data);
    Task<Result<Reply>> receive(Option which);
    // Sends an option without data; whether the server agreed.
    Task<Result<bool>> agree(Option which);
    Task<Result<std::vector<ExportInfo::Context>>> contexts(Option which, std::string name, std::string query);
    // NBD_OPT_INFO / GO; false: the server does not know the option.
    Task<Result<bool>> query_info(Option which, ExportInfo& info);
    Result<void> take_info(Reply const& reply, ExportInfo& info) const;
    Task<Result<void>> choose_by_name(ExportInfo& info);

    Connection& connection_;
    ClientSettings settings_;
    bool no_zeroes_ = false;
};

} // namespace vmm::block::nbd
