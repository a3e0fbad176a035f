#include "block/nbd/server_session.h"

#include "block/nbd/wire_reader.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace vmm::block::nbd {

namespace {

// Buffers have sizes of powers of two from this on, and are kept for later requests up to a total: fresh memory costs a
// page fault every 4 KiB.
constexpr std::size_t least_buffer_bytes = 64 * 1024, max_spare_bytes = 16u << 20;
// From this length on a read first asks which parts are holes, so that zeroes need not travel.
constexpr std::uint32_t sparse_read_bytes = 64 * 1024;
// Requests read in a row before others on the loop get their turn.
constexpr unsigned burst = 64;
// How long the replies to a client that has left may take.
constexpr Nanoseconds goodbye_timeout = 30 * nanoseconds_per_second;

template <class T> ConstBytes bytes_of(T const& value) {
    return {reinterpret_cast<std::uint8_t const*>(&value), sizeof value};
}

std::uint32_t buffer_bytes(Request const& request) {
    auto command = Command(request.command.load());
    return command == Command::read || command == Command::write ? request.length.load() : 0;
}

} // namespace

Session::Session(Server& server, UniqueFd connection)
    : server_(server), connection_(std::make_unique<SocketStream>(server.loop(), std::move(connection))) {}

void Session::shut_down() { connection_.shut_down(); }

void Session::report(Error const& why) const {
    if (server_.settings().on_client_error && why.errno_value() != ESHUTDOWN)
        server_.settings().on_client_error(why.message());
}

Task<void> Session::run() {
    {
        Deadline deadline(server_.loop(), server_.settings().handshake_timeout, [this] { shut_down(); });
        ServerHandshake handshake(server_, connection_);
        Result<std::optional<Negotiated>> outcome = co_await handshake.run();
        if (!outcome.ok()) report(outcome.error());
        if (outcome.ok() && outcome.value()) chosen_ = *outcome.value();
    }
    if (chosen_.target) {
        Result<void> served = co_await serve();
        if (!served.ok()) report(served.error());
        if (!served.ok()) shut_down();
        // A client that leaves still gets the replies to what it asked, if it reads them.
        Deadline patience(server_.loop(), goodbye_timeout, [this] { shut_down(); });
        while (in_flight_ > 0) co_await request_done_.wait();
    }
    shut_down();
}

Task<Result<void>> Session::serve() {
    for (unsigned count = 1;; ++count) {
        CO_TRY_ASSIGN(bool more, co_await next_request());
        if (!more) co_return Result<void>{};
        if (count % burst == 0) {
            YieldAwaiter others{server_.loop()};
            co_await others;
        }
    }
}

// False: the client has left.
Task<Result<bool>> Session::next_request() {
    while (in_flight_ >= max_requests) co_await request_done_.wait();
    Request request;
    CO_TRY_ASSIGN(bool present, co_await connection_.reader.read_struct(request, true));
    if (!present) co_return false;
    if (request.magic != request_magic) co_return Error("Bad request magic", EPROTO);
    auto command = Command(request.command.load());
    if (command == Command::disc) co_return false;
    if (command == Command::write && request.length > max_payload_bytes)
        co_return Error(fmt::format("A write of {} bytes", request.length.load()), EPROTO);
    std::size_t wanted = std::min(buffer_bytes(request), max_payload_bytes);
    while (in_flight_ > 0 && bytes_in_flight_ + wanted > max_bytes_in_flight) co_await request_done_.wait();
    AlignedBuffer data;
    if (command == Command::write) {
        data = take_buffer(request.length);
        if (data || request.length == 0) {
            Bytes payload(data.data(), request.length);
            CO_TRY(co_await connection_.reader.read_exact(payload));
        } else {
            CO_TRY(co_await connection_.reader.skip(request.length)); // no memory: perform() says so
        }
    }
    ++in_flight_;
    bytes_in_flight_ += wanted;
    spawn(perform(request, std::move(data)));
    co_return true;
}

Task<void> Session::perform(Request request, AlignedBuffer data) {
    Result<void> sent;
    Result<void> valid = check(request);
    auto command = Command(request.command.load());
    if (!valid.ok())
        sent = co_await reply(request, valid);
    else if (command == Command::read)
        sent = co_await perform_read(request);
    else if (command == Command::block_status)
        sent = co_await perform_block_status(request);
    else if (command == Command::write && !data && request.length != 0)
        sent = co_await reply(request, Error("Out of memory", ENOMEM));
    else
        sent = co_await perform_other(request, command, ConstBytes(data.data(), data ? request.length.load() : 0));
    if (!sent.ok()) {
        report(sent.error());
        shut_down(); // run() notices: its read fails
    }
    give_back(std::move(data));
    --in_flight_;
    bytes_in_flight_ -= std::min(buffer_bytes(request), max_payload_bytes);
    request_done_.notify_all();
}

Result<void> Session::check(Request const& request) const {
    auto command = Command(request.command.load());
    Export const& target = *chosen_.target;
    unsigned allowed = command_fua;
    switch (command) {
    case Command::read: allowed |= chosen_.structured_replies ? command_df : 0; break;
    case Command::write_zeroes: allowed |= command_no_hole | command_fast_zero; break;
    case Command::block_status: allowed |= command_req_one; break;
    case Command::write:
    case Command::flush:
    case Command::trim:
    case Command::cache: break;
    default: return Error(fmt::format("invalid request type ({})", request.command.load()), EINVAL);
    }
    if (request.flags & ~allowed) return Error(fmt::format("unsupported flags {:#x}", request.flags.load()), EINVAL);
    bool writes = command == Command::write || command == Command::trim || command == Command::write_zeroes;
    if (writes && target.read_only()) return Error("Export is read-only", EPERM);
    if (command == Command::flush) return {};
    if (request.offset > target.size_bytes() || request.length > target.size_bytes() - request.offset)
        return Error(fmt::format("operation past EOF; From: {}, Len: {}, Size: {}", request.offset.load(),
                                 request.length.load(), target.size_bytes()),
                     command == Command::write || command == Command::write_zeroes ? ENOSPC : EINVAL);
    bool bounded = command == Command::read || command == Command::cache;
    if (bounded && request.length > max_payload_bytes)
        return Error(fmt::format("len ({}) is larger than max len ({})", request.length.load(), max_payload_bytes),
                     EINVAL);
    if (command == Command::block_status) {
        if (chosen_.contexts.empty()) return Error("CMD_BLOCK_STATUS not negotiated", EINVAL);
        if (request.length == 0) return Error("need non-zero length", EINVAL);
    }
    return {};
}

AlignedBuffer Session::take_buffer(std::size_t size) {
    if (size == 0) return AlignedBuffer();
    std::size_t rounded = std::max(std::bit_ceil(size), least_buffer_bytes);
    auto found = std::ranges::find(spare_, rounded, &AlignedBuffer::size);
    if (found == spare_.end()) return AlignedBuffer(rounded);
    std::swap(*found, spare_.back());
    AlignedBuffer buffer = std::move(spare_.back());
    spare_.pop_back();
    spare_bytes_ -= rounded;
    return buffer;
}

void Session::give_back(AlignedBuffer buffer) {
    if (!buffer || spare_bytes_ + buffer.size() > max_spare_bytes) return;
    spare_bytes_ += buffer.size();
    spare_.push_back(std::move(buffer));
}

Task<Result<void>> Session::send(ConstIoSpans parts) {
    AsyncLock turn = co_await sending_.lock();
    Result<void> sent = co_await connection_.stream->write_all(parts);
    co_return sent;
}

Task<Result<void>> Session::send_chunk(Request request, Chunk type, bool last, ConstBytes head, ConstBytes body) {
    StructuredReply header{.magic = structured_reply_magic,
                           .flags = std::uint16_t(last ? chunk_done : 0),
                           .type = std::uint16_t(type),
                           .cookie = request.cookie,
                           .length = std::uint32_t(head.size() + body.size())};
    IoVector all(bytes_of(header));
    all.append(head);
    all.append(body);
    Result<void> sent = co_await send(all.const_spans());
    co_return sent;
}

// The last reply to a request, without data.
Task<Result<void>> Session::reply(Request request, Result<void> result) {
    int failure = result.ok() ? 0 : result.error().errno_value() ? result.error().errno_value() : EIO;
    bool structured = chosen_.structured_replies; // simple replies stay allowed where there is no data to send
    if (!structured || (failure == 0 && Command(request.command.load()) != Command::read)) {
        SimpleReply simple{simple_reply_magic, to_wire_error(failure), request.cookie};
        IoVector one(bytes_of(simple));
        Result<void> sent = co_await send(one.const_spans());
        co_return sent;
    }
    if (failure == 0) {
        Result<void> sent = co_await send_chunk(request, Chunk::none, true, ConstBytes(), ConstBytes());
        co_return sent;
    }
    std::string text = result.error().message().substr(0, max_string_bytes);
    ErrorPayload payload{to_wire_error(failure), std::uint16_t(text.size())};
    ConstBytes words(reinterpret_cast<std::uint8_t const*>(text.data()), text.size());
    Result<void> sent = co_await send_chunk(request, Chunk::error, true, bytes_of(payload), words);
    co_return sent;
}

Task<Result<void>> Session::perform_read(Request request) {
    bool may_split = chosen_.structured_replies && !(request.flags & command_df);
    Result<void> sent;
    bool ended = false;
    if (may_split && request.length == 0)
        sent = co_await reply(request, Result<void>());
    else if (may_split && request.length >= sparse_read_bytes)
        sent = co_await sparse_read(request);
    else
        sent = co_await read_and_reply(request, request.offset, request.length, true, ended);
    co_return sent;
}

// Reads a part of a request and sends it; an error is sent instead and ends the request.
Task<Result<void>> Session::read_and_reply(Request request, std::uint64_t offset, std::uint64_t length, bool last,
                                           bool& ended) {
    AlignedBuffer data = take_buffer(length);
    Bytes bytes(data.data(), length);
    Result<void> result;
    if (!data && length > 0)
        result = Error("Out of memory", ENOMEM);
    else
        result = co_await chosen_.target->read(offset, bytes);
    Result<void> sent;
    if (!result.ok()) {
        ended = true;
        sent = co_await reply(request, result);
    } else if (chosen_.structured_replies) {
        be64 where(offset);
        sent = co_await send_chunk(request, Chunk::offset_data, last, bytes_of(where), bytes);
    } else {
        SimpleReply simple{simple_reply_magic, 0u, request.cookie};
        IoVector all(bytes_of(simple));
        all.append(bytes);
        sent = co_await send(all.const_spans());
    }
    give_back(std::move(data));
    co_return sent;
}

Task<Result<void>> Session::sparse_read(Request request) {
    Result<std::vector<Extent>> map = co_await chosen_.target->extents(0, request.offset, request.length, max_extents);
    std::uint64_t offset = request.offset, end = offset + request.length;
    bool zeroes = map.ok() && std::ranges::any_of(map.value(), [](Extent const& e) { return e.flags & state_zero; });
    Result<void> sent;
    bool ended = false;
    if (!zeroes) { // nothing to skip, or nobody knows
        sent = co_await read_and_reply(request, offset, request.length, true, ended);
        co_return sent;
    }
    // Neighbouring stretches that must be read are read at once.
    std::vector<Extent> const& extents = map.value();
    for (std::size_t i = 0; offset < end && sent.ok() && !ended;) {
        bool zero = i < extents.size() && (extents[i].flags & state_zero);
        std::uint64_t length = 0;
        for (; i < extents.size() && bool(extents[i].flags & state_zero) == zero; ++i) length += extents[i].length;
        if (i == extents.size() && !zero) length = end - offset;
        if (length == 0) continue;
        bool last = offset + length == end;
        if (zero) {
            HolePayload hole{offset, std::uint32_t(length)};
            sent = co_await send_chunk(request, Chunk::offset_hole, last, bytes_of(hole), ConstBytes());
        } else {
            sent = co_await read_and_reply(request, offset, length, last, ended);
        }
        offset += length;
    }
    co_return sent;
}

Task<Result<void>> Session::perform_block_status(Request request) {
    std::size_t limit = request.flags & command_req_one ? 1 : max_extents;
    Result<void> sent;
    for (std::size_t i = 0; i < chosen_.contexts.size() && sent.ok(); ++i) {
        unsigned id = chosen_.contexts[i];
        Result<std::vector<Extent>> map = co_await chosen_.target->extents(id, request.offset, request.length, limit);
        if (!map.ok()) {
            Result<void> failure(map.error());
            sent = co_await reply(request, failure);
            co_return sent;
        }
        be32 wire_id(id);
        ConstBytes body(reinterpret_cast<std::uint8_t const*>(map.value().data()), map.value().size() * sizeof(Extent));
        bool last = i + 1 == chosen_.contexts.size();
        sent = co_await send_chunk(request, Chunk::block_status, last, bytes_of(wire_id), body);
    }
    co_return sent;
}

Task<Result<void>> Session::perform_other(Request request, Command command, ConstBytes data) {
    Export& target = *chosen_.target;
    bool fua = request.flags & command_fua;
    Durability durability = fua ? Durability::fua : Durability::cached;
    Result<void> result;
    if (command == Command::write) {
        result = co_await target.write(request.offset, data, durability);
    } else if (command == Command::flush) {
        result = co_await target.flush();
    } else if (command == Command::trim) {
        result = co_await target.trim(request.offset, request.length);
        if (result.ok() && fua) result = co_await target.flush();
    } else if (command == Command::write_zeroes) {
        ZeroFlags flags{.may_unmap = !(request.flags & command_no_hole),
                        .no_fallback = bool(request.flags & command_fast_zero),
                        .durability = durability};
        result = co_await target.write_zeroes(request.offset, request.length, flags);
    } // cache: a hint; the host's page cache reads ahead by itself
    Result<void> sent = co_await reply(request, result);
    co_return sent;
}

} // namespace vmm::block::nbd
