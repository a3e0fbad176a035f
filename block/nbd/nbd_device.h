// NbdDevice: an export of an NBD server as a BlockDevice.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/sync.h"
#include "block/nbd/client_connection.h"

namespace vmm::block::nbd {

class NbdDevice final : public BlockDevice, public SparseCapable, public AllocationMap, public Resizable {
public:
    struct Settings {
        SocketAddress address;
        ClientSettings client;
        std::uint64_t reconnect_delay_seconds = 0;
        bool read_only = false;
        bool auto_read_only = false;
        bool unmap = false; // discard=unmap
    };
    // "Failed to connect to ...", the handshake's errors, "request for write access denied" for a read-only export.
    static Task<Result<std::unique_ptr<BlockDevice>>> open(EventLoop& loop, Settings settings);
    ~NbdDevice() override;

    std::uint64_t size_bytes() const override { return info_.size_bytes; }
    bool read_only() const override { return settings_.read_only; }
    Limits limits() const override;
    Capabilities capabilities() override;
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<BlockStatus>> status(std::uint64_t offset, std::uint64_t length) override;
    // An export has the size it has: succeeds where that is enough.
    Task<Result<void>> resize(ResizeRequest request) override;

private:
    NbdDevice(EventLoop& loop, Settings settings) : loop_(loop), settings_(std::move(settings)) {}
    bool can(std::uint16_t flag) const { return (info_.flags & flag) != 0; }
    std::uint64_t longest_transfer() const;
    // A command without data over any length, in pieces.
    Task<Result<void>> over_range(Command command, std::uint16_t flags, std::uint64_t offset, std::uint64_t length);
    // One request; again on a new connection while reconnecting is allowed.
    Task<Result<void>> call(ClientRequest request);
    Task<Result<std::shared_ptr<ClientConnection>>> connected();
    Task<Result<std::shared_ptr<ClientConnection>>> connect();

    EventLoop& loop_;
    Settings settings_;
    ExportInfo info_;
    std::shared_ptr<ClientConnection> connection_;
    AsyncMutex connecting_;
};

} // namespace vmm::block::nbd
