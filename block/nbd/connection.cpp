#include "block/nbd/connection.h"

#include <cerrno>

namespace vmm::block::nbd {

Task<Result<void>> Connection::start_tls(std::shared_ptr<TlsCredentials const> credentials, std::string hostname) {
    // What somebody injected in the clear must not count as said under TLS.
    if (reader.buffered() != 0) co_return Error("Data follows STARTTLS in the clear", EPROTO);
    stream.release(); // it is `socket`: the only stream there is before TLS
    std::unique_ptr<SocketStream> plain(socket);
    Result<std::unique_ptr<ByteStream>> secure =
        co_await nbd::start_tls(std::move(plain), std::move(credentials), std::move(hostname));
    if (!secure.ok()) {
        socket = nullptr;
        co_return secure.error();
    }
    stream = std::move(secure).value();
    reader.replace_stream(*stream);
    co_return Result<void>{};
}

} // namespace vmm::block::nbd
