#include "block/nbd/nbd_client.h"

#include "block/core/existing_target.h"
#include "block/nbd/client_connection.h"
#include "block/nbd/nbd_device.h"
#include "vmm/base/timer_queue.h"

namespace vmm::block::nbd {

Result<std::shared_ptr<TlsCredentials const>> client_credentials(BlockContext& context, NbdLocation const& where) {
    if (!where.tls_creds.empty()) {
        if (!context.tls) return error("No TLS credentials with id '{}'", where.tls_creds);
        return context.tls->find(where.tls_creds, false);
    }
    if (!where.tls) return std::shared_ptr<TlsCredentials const>();
    TlsSettings settings;
    settings.kind = where.tls_psk_file.empty() ? TlsKind::x509 : TlsKind::psk;
    settings.psk_file = where.tls_psk_file;
    settings.directory = where.tls_directory;
    if (!where.tls_username.empty()) settings.username = where.tls_username;
    return TlsCredentials::create(std::move(settings));
}

Task<Result<std::vector<ExportInfo>>> list_exports(EventLoop& loop, SocketAddress address, ClientSettings settings) {
    CO_TRY_ASSIGN(UniqueFd socket, co_await connect_socket(loop, std::move(address)));
    Connection connection(std::make_unique<SocketStream>(loop, std::move(socket)));
    ClientHandshake handshake(connection, std::move(settings));
    Result<std::vector<ExportInfo>> found = co_await handshake.list();
    co_return found;
}

namespace {

Task<Result<std::unique_ptr<BlockDevice>>> open(BlockContext& context, OpenOptions options) {
    CO_TRY_ASSIGN(NbdLocation where, nbd_location(options));
    ClientSettings settings;
    settings.export_name = where.export_name;
    if (!where.bitmap_context.empty()) settings.context = where.bitmap_context;
    settings.tls_hostname = where.tls_hostname.empty() ? where.address.host : where.tls_hostname;
    CO_TRY_ASSIGN(settings.credentials, client_credentials(context, where));
    Nanoseconds give_up = host_monotonic() + Nanoseconds(where.open_timeout_seconds) * nanoseconds_per_second;
    for (;;) {
        NbdDevice::Settings device{where.address,
                                   settings,
                                   where.reconnect_delay_seconds,
                                   options.read_only,
                                   options.auto_read_only,
                                   options.discard == DiscardMode::unmap};
        Result<std::unique_ptr<BlockDevice>> opened = co_await NbdDevice::open(context.loop, std::move(device));
        if (opened.ok() || host_monotonic() >= give_up) co_return opened;
        co_await sleep_for(context.loop, nanoseconds_per_second);
    }
}

constexpr OptionSpec open_options[] = {
    {"server.", OptionType::string, "type, path, host, port"},
    {"type", OptionType::string, ""},
    {"host", OptionType::string, ""},
    {"port", OptionType::string, ""},
    {"path", OptionType::string, ""},
    {"export", OptionType::string, "name of the export"},
    {"tls-creds", OptionType::string, "ID of the credentials"},
    {"tls-hostname", OptionType::string, "the name the server's certificate must have"},
    {"x-dirty-bitmap", OptionType::string, "metadata context to show instead of the allocation"},
    {"reconnect-delay", OptionType::number, "seconds to wait for a lost server"},
    {"open-timeout", OptionType::number, "seconds to wait for a server to come up"},
};

Task<Result<void>> create(BlockContext& context, std::string filename, std::uint64_t size, OptionValues options) {
    Result<void> result = co_await claim_existing_target(context, "nbd", std::move(filename), size, std::move(options));
    co_return result;
}

} // namespace

Protocol nbd_protocol() {
    return {.name = "nbd",
            .matches = is_nbd_name,
            .open = open,
            .create = create,
            .create_options = existing_target_options(),
            .open_options = open_options};
}

} // namespace vmm::block::nbd
