// BlockContext: what every part of the block layer is handed instead of globals.
#pragma once
#include <memory>

namespace vmm {
class EventLoop;
class Log;
} // namespace vmm

namespace vmm::block {

class WorkerPool;
class IoEngine;
class FormatTable;
class SecretStore;
namespace nbd {
class TlsStore;
}

// References to the program's services; whoever makes it (main, a test) owns them all and keeps them alive longer than
// any image. Handed by reference; every task runs on `loop`'s thread.
struct BlockContext {
    EventLoop& loop;
    WorkerPool& pool;
    Log& log;
    FormatTable const& formats;
    // The passphrases of `--object secret` / `-object secret`; null: none were given.
    SecretStore const* secrets = nullptr;
    // Shared io_uring for this loop; null: io_uring is not to be used and every file gets the thread pool.
    IoEngine* uring = nullptr;
    // The credentials of `--object tls-creds-*`; null: none were given.
    nbd::TlsStore const* tls = nullptr;
};

} // namespace vmm::block
