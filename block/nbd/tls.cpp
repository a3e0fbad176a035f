#include "block/nbd/tls.h"

#include "block/core/option_values.h"
#include "block/nbd/gnutls_library.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

namespace vmm::block::nbd {

Result<TlsSettings> parse_tls_settings(TlsKind kind, OptionValues const& values) {
    TlsSettings settings;
    settings.kind = kind;
    for (auto const& [name, value] : values.all()) {
        if (name == "dir")
            settings.directory = value;
        else if (name == "endpoint" && (value == "server" || value == "client"))
            settings.server = value == "server";
        else if (name == "endpoint")
            return error("Parameter 'endpoint' does not accept value '{}'", value);
        else if (name == "verify-peer")
            settings.verify_peer = TRY(parse_bool(value, name));
        else if (name == "priority")
            settings.priority = value;
        else if (name == "username" && kind == TlsKind::psk)
            settings.username = value;
        else if (name != "id" && name != "qom-type")
            return error("Parameter '{}' is unexpected", name);
    }
    return settings;
}

struct TlsCredentials::Handles {
    explicit Handles(std::shared_ptr<GnutlsLibrary const> loaded) : library(std::move(loaded)) {}
    std::shared_ptr<GnutlsLibrary const> library;
    gnutls_certificate_credentials_t x509 = nullptr;
    gnutls_psk_server_credentials_t psk_server = nullptr;
    gnutls_psk_client_credentials_t psk_client = nullptr;
    gnutls_anon_server_credentials_t anon_server = nullptr;
    gnutls_anon_client_credentials_t anon_client = nullptr;
    ~Handles() {
        if (x509) library->certificate_free_credentials(x509);
        if (psk_server) library->psk_free_server_credentials(psk_server);
        if (psk_client) library->psk_free_client_credentials(psk_client);
        if (anon_server) library->anon_free_server_credentials(anon_server);
        if (anon_client) library->anon_free_client_credentials(anon_client);
    }
    Result<void> load_x509(TlsSettings const& settings);
    Result<void> load_psk(TlsSettings const& settings);
    Result<void> load_anonymous(bool server);
};

namespace {

Error tls_error(GnutlsLibrary const& library, std::string what, int code) {
    return Error(what + ": " + library.strerror(code), EIO);
}

bool readable(std::string const& path) { return ::access(path.c_str(), R_OK) == 0; }

// The hexadecimal key of `username` in a keys.psk file ("name:hex" lines).
Result<std::string> psk_of(std::string const& path, std::string const& username) {
    std::ifstream file(path);
    if (!file) return error_from_errno(errno, "Unable to open PSK file '{}'", path);
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(username + ":")) return line.substr(username.size() + 1);
    return error("Username '{}' not found in PSK file '{}'", username, path);
}

} // namespace

Result<void> TlsCredentials::Handles::load_x509(TlsSettings const& settings) {
    if (int code = library->certificate_allocate_credentials(&x509); code < 0)
        return tls_error(*library, "Cannot allocate credentials", code);
    if (settings.directory.empty()) {
        if (settings.server) return error("TLS credentials of a server need a 'dir'");
        int code = library->certificate_set_x509_system_trust(x509);
        return code < 0 ? Result<void>(tls_error(*library, "Cannot load the system's certificate authorities", code))
                        : Result<void>{};
    }
    std::string ca = settings.directory + "/ca-cert.pem", crl = settings.directory + "/ca-crl.pem";
    std::string side = settings.directory + (settings.server ? "/server" : "/client");
    std::string certificate = side + "-cert.pem", key = side + "-key.pem";
    if (settings.verify_peer || readable(ca)) {
        if (!readable(ca)) return error_from_errno(errno, "Unable to access credentials {}", ca);
        int code = library->certificate_set_x509_trust_file(x509, ca.c_str(), GNUTLS_X509_FMT_PEM);
        if (code < 0) return tls_error(*library, "Cannot load CA certificate '" + ca + "'", code);
    }
    if (settings.server || readable(certificate)) {
        if (!readable(certificate)) return error_from_errno(errno, "Unable to access credentials {}", certificate);
        int code = library->certificate_set_x509_key_file(x509, certificate.c_str(), key.c_str(), GNUTLS_X509_FMT_PEM);
        if (code < 0)
            return tls_error(*library, "Cannot load certificate '" + certificate + "' & key '" + key + "'", code);
    }
    if (readable(crl)) {
        int code = library->certificate_set_x509_crl_file(x509, crl.c_str(), GNUTLS_X509_FMT_PEM);
        if (code < 0) return tls_error(*library, "Cannot load CRL '" + crl + "'", code);
    }
    if (settings.server) library->certificate_set_known_dh_params(x509, GNUTLS_SEC_PARAM_MEDIUM);
    return {};
}

Result<void> TlsCredentials::Handles::load_psk(TlsSettings const& settings) {
    std::string path = settings.psk_file.empty() ? settings.directory + "/keys.psk" : settings.psk_file;
    if (!readable(path)) return error_from_errno(errno, "Unable to access credentials {}", path);
    if (settings.server) {
        library->psk_allocate_server_credentials(&psk_server);
        int code = library->psk_set_server_credentials_file(psk_server, path.c_str());
        if (code < 0) return tls_error(*library, "Cannot load PSK file '" + path + "'", code);
        library->psk_set_server_known_dh_params(psk_server, GNUTLS_SEC_PARAM_MEDIUM);
        return {};
    }
    std::string hex = TRY(psk_of(path, settings.username));
    library->psk_allocate_client_credentials(&psk_client);
    gnutls_datum_t key{reinterpret_cast<unsigned char*>(hex.data()), unsigned(hex.size())};
    int code = library->psk_set_client_credentials(psk_client, settings.username.c_str(), &key, GNUTLS_PSK_KEY_HEX);
    if (code < 0)
        return tls_error(*library, "Cannot use the key of '" + settings.username + "' in '" + path + "'", code);
    return {};
}

Result<void> TlsCredentials::Handles::load_anonymous(bool server) {
    int code = server ? library->anon_allocate_server_credentials(&anon_server)
                      : library->anon_allocate_client_credentials(&anon_client);
    if (code < 0) return tls_error(*library, "Cannot allocate credentials", code);
    if (server) library->anon_set_server_known_dh_params(anon_server, GNUTLS_SEC_PARAM_MEDIUM);
    return {};
}

TlsCredentials::TlsCredentials(TlsSettings settings, std::unique_ptr<Handles> handles)
    : settings_(std::move(settings)), handles_(std::move(handles)) {}
TlsCredentials::~TlsCredentials() = default;

Result<std::shared_ptr<TlsCredentials const>> TlsCredentials::create(TlsSettings settings) {
    auto handles = std::make_unique<Handles>(TRY(GnutlsLibrary::load()));
    switch (settings.kind) {
    case TlsKind::x509: TRY(handles->load_x509(settings)); break;
    case TlsKind::psk: TRY(handles->load_psk(settings)); break;
    case TlsKind::anonymous: TRY(handles->load_anonymous(settings.server)); break;
    }
    return std::shared_ptr<TlsCredentials const>(new TlsCredentials(std::move(settings), std::move(handles)));
}

Result<std::shared_ptr<TlsCredentials const>> TlsStore::find(std::string const& id, bool server) const {
    auto found = by_id_.find(id);
    if (found == by_id_.end()) return error("No TLS credentials with id '{}'", id);
    if (found->second->settings().server != server)
        return error("Expecting TLS credentials with a {} endpoint", server ? "server" : "client");
    return found->second;
}

class TlsStream final : public ByteStream {
public:
    TlsStream(std::unique_ptr<SocketStream> socket, std::shared_ptr<TlsCredentials const> credentials)
        : socket_(std::move(socket)), credentials_(std::move(credentials)) {}
    ~TlsStream() override {
        if (session_) tls().deinit(session_);
    }

    Result<void> prepare(std::string const& hostname);
    Task<Result<void>> handshake();
    Task<Result<std::size_t>> read_some(Bytes to) override;
    Task<Result<void>> write_all(ConstIoSpans from) override;
    void shut_down() override { socket_->shut_down(); }
    void write_now(ConstBytes from) override {
        if (writing_ || socket_->is_shut_down()) return;
        if (tls().record_send(session_, from.data(), from.size()) >= 0) tls().bye(session_, GNUTLS_SHUT_WR);
    }

private:
    GnutlsLibrary const& tls() const { return *credentials_->handles_->library; }
    SocketStream::Awaiter wanted() {
        return socket_->ready(tls().record_get_direction(session_) ? Ready::write : Ready::read);
    }
    Error failed(std::string_view doing, int code) const;

    std::unique_ptr<SocketStream> socket_;
    std::shared_ptr<TlsCredentials const> credentials_;
    gnutls_session_t session_ = nullptr;
    std::string hostname_;
    bool writing_ = false;
};

Error TlsStream::failed(std::string_view doing, int code) const {
    std::string reason = tls().strerror(code);
    if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
        gnutls_datum_t text{};
        unsigned status = tls().session_get_verify_cert_status(session_);
        if (tls().certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) == 0) {
            reason = std::string(reinterpret_cast<char const*>(text.data), text.size);
            (*tls().free)(text.data);
        }
    }
    return Error(fmt::format("{}: {}", doing, reason), EIO);
}

Result<void> TlsStream::prepare(std::string const& hostname) {
    TlsSettings const& settings = credentials_->settings_;
    TlsCredentials::Handles const& handles = *credentials_->handles_;
    unsigned flags = (settings.server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL;
    if (int code = tls().init(&session_, flags); code < 0)
        return tls_error(tls(), "Cannot initialize TLS session", code);
    std::string priority = settings.priority.empty() ? "NORMAL" : settings.priority;
    if (settings.kind == TlsKind::psk) priority += ":+ECDHE-PSK:+DHE-PSK:+PSK";
    if (settings.kind == TlsKind::anonymous) priority += ":-VERS-TLS1.3:+ANON-ECDH:+ANON-DH";
    if (int code = tls().priority_set_direct(session_, priority.c_str(), nullptr); code < 0)
        return tls_error(tls(), "Unable to set TLS session priority " + priority, code);
    int code = 0;
    if (settings.kind == TlsKind::x509) code = tls().credentials_set(session_, GNUTLS_CRD_CERTIFICATE, handles.x509);
    if (settings.kind == TlsKind::psk)
        code = settings.server ? tls().credentials_set(session_, GNUTLS_CRD_PSK, handles.psk_server)
                               : tls().credentials_set(session_, GNUTLS_CRD_PSK, handles.psk_client);
    if (settings.kind == TlsKind::anonymous)
        code = settings.server ? tls().credentials_set(session_, GNUTLS_CRD_ANON, handles.anon_server)
                               : tls().credentials_set(session_, GNUTLS_CRD_ANON, handles.anon_client);
    if (code < 0) return tls_error(tls(), "Cannot set session credentials", code);
    if (settings.kind == TlsKind::x509 && settings.verify_peer) {
        hostname_ = hostname; // GnuTLS keeps the pointer
        tls().session_set_verify_cert(session_, !settings.server && !hostname_.empty() ? hostname_.c_str() : nullptr,
                                      0);
        if (settings.server) tls().certificate_server_set_request(session_, GNUTLS_CERT_REQUIRE);
        if (!settings.server && !hostname_.empty())
            tls().server_name_set(session_, GNUTLS_NAME_DNS, hostname_.data(), hostname_.size());
    }
    tls().transport_set_int2(session_, socket_->fd(), socket_->fd());
    return {};
}

Task<Result<void>> TlsStream::handshake() {
    for (;;) {
        if (socket_->is_shut_down()) co_return Error("The connection was shut down", ESHUTDOWN);
        int code = tls().handshake(session_);
        if (code == GNUTLS_E_SUCCESS) co_return Result<void>{};
        if (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED) {
            SocketStream::Awaiter progress = wanted();
            co_await progress;
        } else if (tls().error_is_fatal(code)) {
            co_return failed("TLS handshake failed", code);
        }
    }
}

Task<Result<std::size_t>> TlsStream::read_some(Bytes to) {
    for (;;) {
        if (socket_->is_shut_down()) co_return Error("The connection was shut down", ESHUTDOWN);
        ssize_t got = tls().record_recv(session_, to.data(), to.size());
        if (got >= 0) co_return std::size_t(got);
        if (got == GNUTLS_E_PREMATURE_TERMINATION) co_return std::size_t(0); // as many clients end
        if (got != GNUTLS_E_AGAIN && got != GNUTLS_E_INTERRUPTED)
            co_return failed("Cannot read from TLS channel", int(got));
        SocketStream::Awaiter readable_again = socket_->ready(Ready::read);
        co_await readable_again;
    }
}

Task<Result<void>> TlsStream::write_all(ConstIoSpans from) {
    for (iovec const& part : from.parts) {
        auto const* bytes = static_cast<std::uint8_t const*>(part.iov_base);
        for (std::size_t done = 0; done < part.iov_len;) {
            if (socket_->is_shut_down()) co_return Error("The connection was shut down", ESHUTDOWN);
            writing_ = true;
            ssize_t sent = tls().record_send(session_, bytes + done, part.iov_len - done);
            if (sent >= 0) {
                done += std::size_t(sent);
            } else if (sent == GNUTLS_E_AGAIN || sent == GNUTLS_E_INTERRUPTED) {
                SocketStream::Awaiter writable = socket_->ready(Ready::write);
                co_await writable;
            } else {
                co_return failed("Cannot write to TLS channel", int(sent));
            }
        }
    }
    writing_ = false;
    co_return Result<void>{};
}

Task<Result<std::unique_ptr<ByteStream>>> start_tls(std::unique_ptr<SocketStream> socket,
                                                    std::shared_ptr<TlsCredentials const> credentials,
                                                    std::string hostname) {
    auto stream = std::make_unique<TlsStream>(std::move(socket), std::move(credentials));
    CO_TRY(stream->prepare(hostname));
    CO_TRY(co_await stream->handshake());
    std::unique_ptr<ByteStream> done = std::move(stream);
    co_return std::move(done);
}

} // namespace vmm::block::nbd
