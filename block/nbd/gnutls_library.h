// GnutlsLibrary: GnuTLS, loaded when the first TLS credentials are made. It and the dozen libraries it brings take
// longer to load than most of what vmm-img is asked for takes to do, so no program is linked with it.
#pragma once
#include "vmm/base/result.h"

#include <gnutls/gnutls.h>

#include <memory>

namespace vmm::block::nbd {

// Every name of GnuTLS that is used, without its prefix. `free` is a variable of the library: (*free)(pointer).
#define VMM_GNUTLS_NAMES(X)                                                                                            \
    X(anon_allocate_client_credentials)                                                                                \
    X(anon_allocate_server_credentials)                                                                                \
    X(anon_free_client_credentials)                                                                                    \
    X(anon_free_server_credentials)                                                                                    \
    X(anon_set_server_known_dh_params)                                                                                 \
    X(bye)                                                                                                             \
    X(certificate_allocate_credentials)                                                                                \
    X(certificate_free_credentials)                                                                                    \
    X(certificate_server_set_request)                                                                                  \
    X(certificate_set_known_dh_params)                                                                                 \
    X(certificate_set_x509_crl_file)                                                                                   \
    X(certificate_set_x509_key_file)                                                                                   \
    X(certificate_set_x509_system_trust)                                                                               \
    X(certificate_set_x509_trust_file)                                                                                 \
    X(certificate_verification_status_print)                                                                           \
    X(credentials_set)                                                                                                 \
    X(deinit)                                                                                                          \
    X(error_is_fatal)                                                                                                  \
    X(free)                                                                                                            \
    X(handshake)                                                                                                       \
    X(init)                                                                                                            \
    X(priority_set_direct)                                                                                             \
    X(psk_allocate_client_credentials)                                                                                 \
    X(psk_allocate_server_credentials)                                                                                 \
    X(psk_free_client_credentials)                                                                                     \
    X(psk_free_server_credentials)                                                                                     \
    X(psk_set_client_credentials)                                                                                      \
    X(psk_set_server_credentials_file)                                                                                 \
    X(psk_set_server_known_dh_params)                                                                                  \
    X(record_get_direction)                                                                                            \
    X(record_recv)                                                                                                     \
    X(record_send)                                                                                                     \
    X(server_name_set)                                                                                                 \
    X(session_get_verify_cert_status)                                                                                  \
    X(session_set_verify_cert)                                                                                         \
    X(strerror)                                                                                                        \
    X(transport_set_int2)

// The library's functions under their own names, less "gnutls_". Immutable; stays in memory until the process ends.
struct GnutlsLibrary {
#define X(name) decltype(&gnutls_##name) name = nullptr;
    VMM_GNUTLS_NAMES(X)
#undef X
    // "TLS is not available: libgnutls.so.30: cannot open shared object file: ...".
    static Result<std::shared_ptr<GnutlsLibrary const>> load();
};

} // namespace vmm::block::nbd
