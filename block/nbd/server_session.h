// Session: one client of a Server, from its first byte to its last reply.
#pragma once
#include "block/core/sync.h"
#include "block/nbd/server_handshake.h"

#include <memory>

namespace vmm::block::nbd {

// Requests run at the same time, each as a task; replies go out in order of completion. Loop thread only.
class Session {
public:
    Session(Server& server, UniqueFd connection);
    // Until the client has left and its last request is done. Run once.
    Task<void> run();
    // Makes run() end soon.
    void shut_down();
    // The client has chosen an export.
    bool negotiated() const { return chosen_.target != nullptr; }

    // What one client can make us hold.
    static constexpr std::size_t max_requests = 128;
    static constexpr std::size_t max_bytes_in_flight = 64u << 20;
    static constexpr std::size_t max_extents = 64 * 1024;

private:
    Task<Result<void>> serve();
    Task<Result<bool>> next_request();
    Task<void> perform(Request request, AlignedBuffer data);
    Result<void> check(Request const& request) const;
    // The whole life of each kind of request; the Result is that of the connection.
    Task<Result<void>> perform_read(Request request);
    Task<Result<void>> read_and_reply(Request request, std::uint64_t offset, std::uint64_t length, bool last,
                                      bool& ended);
    Task<Result<void>> sparse_read(Request request);
    Task<Result<void>> perform_block_status(Request request);
    Task<Result<void>> perform_other(Request request, Command command, ConstBytes data);
    Task<Result<void>> reply(Request request, Result<void> result);
    Task<Result<void>> send_chunk(Request request, Chunk type, bool last, ConstBytes head, ConstBytes body);
    Task<Result<void>> send(ConstIoSpans parts);
    void report(Error const& why) const;
    AlignedBuffer take_buffer(std::size_t size);
    void give_back(AlignedBuffer buffer);

    Server& server_;
    Connection connection_;
    Negotiated chosen_;
    AsyncMutex sending_;
    std::size_t in_flight_ = 0, bytes_in_flight_ = 0;
    AsyncCondition request_done_;
    std::vector<AlignedBuffer> spare_; // for reuse
    std::size_t spare_bytes_ = 0;      // their sizes together
};

} // namespace vmm::block::nbd
