// ClientConnection: an NBD session as a client: many requests in flight, matched to their replies by cookie.
#pragma once
#include "block/core/sync.h"
#include "block/nbd/client_handshake.h"

#include <array>
#include <memory>

namespace vmm::block::nbd {

// One request. Memory it names must live until call() has finished.
struct ClientRequest {
    Command command = Command::read;
    std::uint16_t flags = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    std::span<iovec const> to = {};         // read: `length` bytes
    std::span<iovec const> from = {};       // write: `length` bytes
    std::vector<Extent>* extents = nullptr; // block status: of the context chosen in the handshake
};

// Loop thread only. close() must be called before the last reference outside goes; the reader task holds one until
// then.
class ClientConnection {
public:
    // Handshakes over `socket`.
    static Task<Result<std::shared_ptr<ClientConnection>>> open(EventLoop& loop, UniqueFd socket,
                                                                ClientSettings settings);
    ExportInfo const& info() const { return info_; }
    // The connection is of no more use; requests fail.
    bool lost() const { return failure_.has_value(); }
    // The server's error as its errno (lost() tells it apart from a lost connection).
    Task<Result<void>> call(ClientRequest request);
    // Says goodbye and ends; requests in flight fail.
    void close();

    static constexpr std::size_t max_requests = 64;

private:
    explicit ClientConnection(EventLoop& loop, UniqueFd socket)
        : connection_(std::make_unique<SocketStream>(loop, std::move(socket))) {}
    struct Slot {
        bool used = false, done = false;
        std::uint32_t generation = 0;
        ClientRequest request;
        std::uint64_t received = 0; // bytes of a read that have come
        Result<void> result;
        std::coroutine_handle<> waiting;
    };
    struct Waiter {
        Slot& slot;
        bool await_ready() const noexcept { return slot.done; }
        void await_suspend(std::coroutine_handle<> waiting) { slot.waiting = waiting; }
        void await_resume() const noexcept {}
    };
    static Task<void> read_replies(std::shared_ptr<ClientConnection> self);
    Task<Result<void>> read_until_lost();
    Task<Result<void>> read_simple();
    Task<Result<void>> read_chunk();
    Task<Result<void>> read_into(Slot& slot, std::uint64_t skip, std::uint64_t length);
    Task<Result<void>> read_data_chunk(Slot& slot, std::uint32_t length);
    Task<Result<void>> read_hole_chunk(Slot& slot, std::uint32_t length);
    Task<Result<void>> read_status_chunk(Slot& slot, std::uint32_t length);
    Task<Result<void>> read_error_chunk(Slot& slot, Chunk type, std::uint32_t length);
    Task<Result<void>> send(Slot& slot, std::uint64_t cookie);
    Result<Slot*> find(std::uint64_t cookie);
    void complete(Slot& slot);
    void lose(Error why);

    Connection connection_;
    ExportInfo info_;
    std::array<Slot, max_requests> slots_;
    AsyncCondition slot_free_;
    AsyncMutex sending_;
    std::optional<Error> failure_;
};

} // namespace vmm::block::nbd
