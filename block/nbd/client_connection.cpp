#include "block/nbd/client_connection.h"

#include "block/nbd/wire_reader.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::nbd {

namespace {
Error protocol_error(std::string text) { return Error(std::move(text), EPROTO); }
constexpr std::uint32_t max_status_bytes = 8u << 20; // a million extents
} // namespace

Task<Result<std::shared_ptr<ClientConnection>>> ClientConnection::open(EventLoop& loop, UniqueFd socket,
                                                                       ClientSettings settings) {
    std::shared_ptr<ClientConnection> made(new ClientConnection(loop, std::move(socket)));
    ClientHandshake handshake(made->connection_, std::move(settings));
    CO_TRY_ASSIGN(made->info_, co_await handshake.choose());
    spawn(read_replies(made));
    co_return std::move(made);
}

void ClientConnection::close() {
    if (!lost()) {
        Request goodbye{};
        goodbye.magic = request_magic;
        goodbye.command = std::uint16_t(Command::disc);
        if (!sending_.locked())
            connection_.stream->write_now({reinterpret_cast<std::uint8_t const*>(&goodbye), sizeof goodbye});
    }
    lose(Error("The NBD connection was closed", ESHUTDOWN));
}

void ClientConnection::lose(Error why) {
    if (lost()) return;
    failure_ = std::move(why);
    connection_.shut_down(); // the reader ends and completes what is in flight
}

Task<Result<void>> ClientConnection::call(ClientRequest request) {
    auto free = slots_.end();
    for (;;) {
        if (lost()) co_return Error(failure_->message(), EIO);
        free = std::ranges::find(slots_, false, &Slot::used);
        if (free != slots_.end()) break;
        co_await slot_free_.wait();
    }
    Slot& slot = *free;
    std::uint32_t generation = slot.generation + 1;
    slot = Slot{};
    slot.used = true;
    slot.generation = generation;
    slot.request = request;
    std::uint64_t cookie = std::uint64_t(generation) << 32 | std::uint64_t(free - slots_.begin());
    Result<void> sent = co_await send(slot, cookie);
    if (!sent.ok()) {
        lose(sent.error());
        // The reader may have ended before this request was there to be failed; it touches no slot after that.
        if (!slot.done) slot.result = Error(sent.error().message(), EIO);
        slot.done = true;
    }
    Waiter reply{slot};
    co_await reply;
    Result<void> result = std::move(slot.result);
    slot.used = false;
    slot_free_.notify_all();
    co_return result;
}

Task<Result<void>> ClientConnection::send(Slot& slot, std::uint64_t cookie) {
    AsyncLock turn = co_await sending_.lock();
    if (lost()) co_return *failure_;
    ClientRequest const& request = slot.request;
    Request header{.magic = request_magic,
                   .flags = request.flags,
                   .command = std::uint16_t(request.command),
                   .cookie = cookie,
                   .offset = request.offset,
                   .length = request.length};
    IoVector all(ConstBytes(reinterpret_cast<std::uint8_t const*>(&header), sizeof header));
    for (iovec const& part : request.from)
        all.append(ConstBytes(static_cast<std::uint8_t const*>(part.iov_base), part.iov_len));
    Result<void> sent = co_await connection_.stream->write_all(all.const_spans());
    co_return sent;
}

Task<void> ClientConnection::read_replies(std::shared_ptr<ClientConnection> self) {
    Result<void> ended = co_await self->read_until_lost();
    self->lose(ended.ok() ? Error("The NBD server closed the connection", ECONNRESET) : ended.error());
    for (Slot& slot : self->slots_) {
        if (!slot.used || slot.done) continue;
        slot.result = Error(self->failure_->message(), EIO);
        self->complete(slot);
    }
    self->slot_free_.notify_all();
}

Task<Result<void>> ClientConnection::read_until_lost() {
    while (!lost()) {
        be32 magic;
        CO_TRY_ASSIGN(bool more, co_await connection_.reader.read_struct(magic, true));
        if (!more) break;
        if (magic == simple_reply_magic)
            CO_TRY(co_await read_simple());
        else if (magic == structured_reply_magic && info_.structured_replies)
            CO_TRY(co_await read_chunk());
        else
            co_return protocol_error(fmt::format("invalid reply magic {:#x} from the NBD server", magic.load()));
    }
    co_return Result<void>{};
}

Result<ClientConnection::Slot*> ClientConnection::find(std::uint64_t cookie) {
    std::uint64_t index = cookie & 0xffffffff;
    if (index >= slots_.size() || !slots_[index].used || slots_[index].done ||
        slots_[index].generation != std::uint32_t(cookie >> 32))
        return protocol_error("the NBD server replied to a request that was not made");
    return &slots_[index];
}

void ClientConnection::complete(Slot& slot) {
    slot.done = true;
    if (std::coroutine_handle<> waiting = std::exchange(slot.waiting, {})) waiting.resume();
}

Task<Result<void>> ClientConnection::read_into(Slot& slot, std::uint64_t skip, std::uint64_t length) {
    IoVector target = IoVector::slice(slot.request.to, skip, length);
    std::span<iovec const> parts = target.spans().parts;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        Bytes part(static_cast<std::uint8_t*>(parts[i].iov_base), parts[i].iov_len);
        CO_TRY(co_await connection_.reader.read_exact(part));
    }
    slot.received += length;
    co_return Result<void>{};
}

Task<Result<void>> ClientConnection::read_simple() {
    struct {
        be32 error;
        be64 cookie;
    } rest;
    static_assert(sizeof rest == sizeof(SimpleReply) - sizeof(be32));
    CO_TRY(co_await connection_.reader.read_struct(rest));
    CO_TRY_ASSIGN(Slot * slot, find(rest.cookie));
    Command command = slot->request.command;
    if (rest.error != 0) {
        slot->result = Error(std::string(strerror(from_wire_error(rest.error))), from_wire_error(rest.error));
    } else if (command == Command::read || command == Command::block_status) {
        if (info_.structured_replies) co_return protocol_error("simple reply where a structured one is needed");
        CO_TRY(co_await read_into(*slot, 0, slot->request.length));
    }
    complete(*slot);
    co_return Result<void>{};
}

Task<Result<void>> ClientConnection::read_chunk() {
    struct {
        be16 flags, type;
        be64 cookie;
        be32 length;
    } header;
    static_assert(sizeof header == sizeof(StructuredReply) - sizeof(be32));
    CO_TRY(co_await connection_.reader.read_struct(header));
    CO_TRY_ASSIGN(Slot * slot, find(header.cookie));
    auto type = Chunk(header.type.load());
    std::uint32_t length = header.length;
    bool read = slot->request.command == Command::read, last = header.flags & chunk_done;
    if (type == Chunk::none && length == 0 && last)
        ; // nothing but the end
    else if (type == Chunk::offset_data && read)
        CO_TRY(co_await read_data_chunk(*slot, length));
    else if (type == Chunk::offset_hole && read)
        CO_TRY(co_await read_hole_chunk(*slot, length));
    else if (type == Chunk::block_status && slot->request.extents)
        CO_TRY(co_await read_status_chunk(*slot, length));
    else if (is_error(type))
        CO_TRY(co_await read_error_chunk(*slot, type, length));
    else
        co_return protocol_error(
            fmt::format("unexpected reply chunk of type {} and {} bytes", header.type.load(), length));
    if (!last) co_return Result<void>{};
    if (slot->result.ok() && read && slot->received != slot->request.length)
        slot->result = Error("the NBD server did not send all of the data", EIO);
    if (slot->result.ok() && slot->request.extents && slot->request.extents->empty())
        slot->result = Error("the NBD server did not tell the block status", EIO);
    complete(*slot);
    co_return Result<void>{};
}

Task<Result<void>> ClientConnection::read_data_chunk(Slot& slot, std::uint32_t length) {
    be64 offset;
    if (length <= sizeof offset) co_return protocol_error("data chunk without data");
    CO_TRY(co_await connection_.reader.read_struct(offset));
    std::uint64_t bytes = length - sizeof offset, whole = slot.request.length;
    if (offset < slot.request.offset || offset - slot.request.offset > whole ||
        bytes > whole - (offset - slot.request.offset) || bytes > whole - slot.received)
        co_return protocol_error("data chunk outside of the request");
    Result<void> read = co_await read_into(slot, offset - slot.request.offset, bytes);
    co_return read;
}

Task<Result<void>> ClientConnection::read_hole_chunk(Slot& slot, std::uint32_t length) {
    HolePayload hole;
    if (length != sizeof hole) co_return protocol_error("hole chunk of a wrong length");
    CO_TRY(co_await connection_.reader.read_struct(hole));
    std::uint64_t whole = slot.request.length, bytes = hole.length;
    if (hole.offset < slot.request.offset || hole.offset - slot.request.offset > whole ||
        bytes > whole - (hole.offset - slot.request.offset) || bytes == 0 || bytes > whole - slot.received)
        co_return protocol_error("hole chunk outside of the request");
    zero_spans(IoSpans{slot.request.to}, hole.offset - slot.request.offset, bytes);
    slot.received += bytes;
    co_return Result<void>{};
}

Task<Result<void>> ClientConnection::read_status_chunk(Slot& slot, std::uint32_t length) {
    be32 context;
    if (length < sizeof context + sizeof(Extent) || (length - sizeof context) % sizeof(Extent) != 0 ||
        length > max_status_bytes)
        co_return protocol_error("block status chunk of a wrong length");
    CO_TRY(co_await connection_.reader.read_struct(context));
    std::vector<Extent> extents((length - sizeof context) / sizeof(Extent));
    Bytes all(reinterpret_cast<std::uint8_t*>(extents.data()), extents.size() * sizeof(Extent));
    CO_TRY(co_await connection_.reader.read_exact(all));
    if (info_.contexts.empty() || context != info_.contexts[0].id)
        co_return protocol_error("block status of a context that was not asked for");
    if (!slot.request.extents->empty()) co_return protocol_error("block status told twice");
    if (std::ranges::any_of(extents, [](Extent const& e) { return e.length == 0; }))
        co_return protocol_error("block status with an extent of length 0");
    *slot.request.extents = std::move(extents);
    co_return Result<void>{};
}

Task<Result<void>> ClientConnection::read_error_chunk(Slot& slot, Chunk type, std::uint32_t length) {
    std::vector<std::uint8_t> data(std::min<std::size_t>(length, max_option_bytes));
    if (length > max_option_bytes) co_return protocol_error("error chunk is too long");
    CO_TRY(co_await connection_.reader.read_exact(data));
    WireReader reader(data);
    std::optional<ErrorPayload> payload = reader.take<ErrorPayload>();
    std::optional<std::string> text = payload ? reader.take_text(payload->message_length) : std::nullopt;
    std::size_t tail = type == Chunk::error_offset ? sizeof(be64) : 0;
    bool known = type == Chunk::error || type == Chunk::error_offset;
    if (!text || payload->error == 0 || (known && reader.left() != tail))
        co_return protocol_error("error chunk of a wrong length");
    int code = from_wire_error(payload->error);
    if (slot.result.ok()) slot.result = Error(std::string(strerror(code)), code);
    co_return Result<void>{};
}

} // namespace vmm::block::nbd
