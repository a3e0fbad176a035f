// Connection: a socket with its read-ahead, whose transport may change to TLS on the way.
#pragma once
#include "block/nbd/byte_stream.h"
#include "block/nbd/tls.h"

#include <memory>
#include <string>

namespace vmm::block::nbd {

struct Connection {
    explicit Connection(std::unique_ptr<SocketStream> plain)
        : socket(plain.get()), stream(std::move(plain)), reader(*stream) {}
    // Puts TLS between the socket and `stream`; nothing may have been read ahead. After an error only destruction.
    Task<Result<void>> start_tls(std::shared_ptr<TlsCredentials const> credentials, std::string hostname);
    // Ends the connection, whatever its transport and even while TLS starts.
    void shut_down() {
        if (socket) socket->shut_down();
    }

    SocketStream* socket;               // lies in or under `stream`; null after a failed start_tls
    std::unique_ptr<ByteStream> stream; // null while and after TLS fails to start
    BufferedReader reader;
};

} // namespace vmm::block::nbd
