// The nbd protocol of the block layer: an export of an NBD server as a BlockDevice; and asking servers for a list.
#pragma once
#include "block/core/factory.h"
#include "block/nbd/client_handshake.h"
#include "block/nbd/nbd_options.h"

namespace vmm::block::nbd {

// `nbd://host:port/export`, `nbd+unix:///export?socket=path`, `nbds://`, "nbd:host:port", driver=nbd. Reads, writes,
// zeroes, discards and block status as far as the server has them; reconnect-delay=N lets requests wait N seconds for a
// lost server.
Protocol nbd_protocol();

// The credentials `where` asks for; null for none. They come from context.tls by id, or are made for nbds:// names.
Result<std::shared_ptr<TlsCredentials const>> client_credentials(BlockContext& context, NbdLocation const& where);
// What a server offers (`-L`).
Task<Result<std::vector<ExportInfo>>> list_exports(EventLoop& loop, SocketAddress address, ClientSettings settings);

} // namespace vmm::block::nbd
