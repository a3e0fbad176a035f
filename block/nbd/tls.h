// TLS for NBD connections: credentials as qemu's tls-creds-* objects describe them, and a ByteStream through GnuTLS.
#pragma once
#include "block/nbd/socket_stream.h"
#include "vmm/base/result.h"

#include <map>
#include <memory>
#include <string>

namespace vmm::block {
class OptionValues;
}

namespace vmm::block::nbd {

enum class TlsKind : std::uint8_t { anonymous, psk, x509 };

// `tls-creds-KIND,dir=...,endpoint=...`. Files in `dir`: ca-cert.pem, ca-crl.pem, server-cert.pem, server-key.pem,
// client-cert.pem, client-key.pem (x509); keys.psk (psk).
struct TlsSettings {
    TlsKind kind = TlsKind::x509;
    bool server = false;
    std::string directory;         // x509: empty means the system's authorities (client only)
    bool verify_peer = true;       // x509: server asks for a client's certificate; client checks the server's
    std::string priority;          // GnuTLS priority string; empty: NORMAL
    std::string username = "qemu"; // psk, client
    std::string psk_file;          // psk: instead of directory/keys.psk
};
// From the text after `--object tls-creds-psk,` etc.: dir, endpoint, verify-peer, priority, username.
Result<TlsSettings> parse_tls_settings(TlsKind kind, OptionValues const& values);

// Loaded keys and certificates; shared by the sessions that use them. Immutable.
class TlsCredentials {
public:
    // "Unable to load ..., DIR/ca-cert.pem: reason".
    static Result<std::shared_ptr<TlsCredentials const>> create(TlsSettings settings);
    ~TlsCredentials();
    TlsCredentials(TlsCredentials const&) = delete;
    TlsCredentials& operator=(TlsCredentials const&) = delete;
    TlsSettings const& settings() const { return settings_; }

private:
    friend class TlsStream;
    struct Handles;
    TlsCredentials(TlsSettings settings, std::unique_ptr<Handles> handles);
    TlsSettings settings_;
    std::unique_ptr<Handles> handles_;
};

// The credentials a program was given, by id (`--object tls-creds-x509,id=...`).
class TlsStore {
public:
    void add(std::string id, std::shared_ptr<TlsCredentials const> credentials) {
        by_id_[std::move(id)] = std::move(credentials);
    }
    // "No TLS credentials with id 'x'"; or "Expecting TLS credentials with a client endpoint".
    Result<std::shared_ptr<TlsCredentials const>> find(std::string const& id, bool server) const;

private:
    std::map<std::string, std::shared_ptr<TlsCredentials const>> by_id_;
};

// Handshakes over `socket` and returns the encrypted stream, which owns it. `hostname`: what the server's certificate
// must name (client, x509; empty: not checked). Ends when `socket` is shut down.
Task<Result<std::unique_ptr<ByteStream>>> start_tls(std::unique_ptr<SocketStream> socket,
                                                    std::shared_ptr<TlsCredentials const> credentials,
                                                    std::string hostname);

} // namespace vmm::block::nbd
