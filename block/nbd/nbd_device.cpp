#include "block/nbd/nbd_device.h"

#include "vmm/base/timer_queue.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::nbd {

namespace {
constexpr std::uint32_t longest_range = 1u << 30; // of a command without data; a multiple of every block size
}

Task<Result<std::unique_ptr<BlockDevice>>> NbdDevice::open(EventLoop& loop, Settings settings) {
    std::unique_ptr<NbdDevice> made(new NbdDevice(loop, std::move(settings)));
    CO_TRY_ASSIGN(made->connection_, co_await made->connect());
    made->info_ = made->connection_->info();
    if (made->can(flag_read_only) && !made->settings_.read_only) {
        if (!made->settings_.auto_read_only)
            co_return Error("request for write access denied: the NBD export is read-only", EACCES);
        made->settings_.read_only = true;
    }
    std::unique_ptr<BlockDevice> device = std::move(made);
    co_return std::move(device);
}

NbdDevice::~NbdDevice() {
    if (connection_) connection_->close();
}

Task<Result<std::shared_ptr<ClientConnection>>> NbdDevice::connect() {
    CO_TRY_ASSIGN(UniqueFd socket, co_await connect_socket(loop_, settings_.address));
    Result<std::shared_ptr<ClientConnection>> made =
        co_await ClientConnection::open(loop_, std::move(socket), settings_.client);
    co_return made;
}

Task<Result<std::shared_ptr<ClientConnection>>> NbdDevice::connected() {
    if (!connection_->lost()) co_return connection_;
    if (settings_.reconnect_delay_seconds == 0) co_return Error("The connection to the NBD server was lost", EIO);
    AsyncLock turn = co_await connecting_.lock();
    Nanoseconds give_up = host_monotonic() + Nanoseconds(settings_.reconnect_delay_seconds) * nanoseconds_per_second;
    while (connection_->lost()) {
        Result<std::shared_ptr<ClientConnection>> made = co_await connect();
        if (made.ok()) {
            ExportInfo const& now = made.value()->info();
            if (now.size_bytes != info_.size_bytes || (now.flags & info_.flags) != info_.flags) {
                made.value()->close();
                co_return Error("The NBD server came back with a different export", EIO);
            }
            connection_ = std::move(made).value();
            info_ = connection_->info();
            break;
        }
        if (host_monotonic() >= give_up) co_return Error(made.error().message(), EIO);
        co_await sleep_for(loop_, nanoseconds_per_second);
    }
    co_return connection_;
}

Task<Result<void>> NbdDevice::call(ClientRequest request) {
    for (;;) {
        CO_TRY_ASSIGN(std::shared_ptr<ClientConnection> connection, co_await connected());
        Result<void> result = co_await connection->call(request);
        if (result.ok() || !connection->lost() || settings_.reconnect_delay_seconds == 0) co_return result;
        if (request.extents) request.extents->clear();
    }
}

std::uint64_t NbdDevice::longest_transfer() const {
    std::uint32_t longest = info_.maximum_block ? std::min(info_.maximum_block, max_payload_bytes) : max_payload_bytes;
    std::uint32_t block = std::max(info_.minimum_block, 1u);
    return std::max(longest / block * block, block);
}

Limits NbdDevice::limits() const {
    Limits limits;
    limits.request_alignment = std::max(info_.minimum_block, 1u);
    limits.opt_transfer = info_.preferred_block;
    return limits;
}

Capabilities NbdDevice::capabilities() {
    bool sparse = !settings_.read_only && (can(flag_send_trim) || can(flag_send_write_zeroes));
    return Capabilities{
        .sparse = sparse ? this : nullptr, .allocation = info_.contexts.empty() ? nullptr : this, .resizable = this};
}

Task<Result<void>> NbdDevice::resize(ResizeRequest request) {
    if (request.preallocation != Preallocation::off)
        co_return error("Unsupported preallocation mode '{}'", preallocation_name(request.preallocation));
    if (request.new_size_bytes != info_.size_bytes && request.exact) co_return error("Cannot resize NBD nodes");
    if (request.new_size_bytes > info_.size_bytes) co_return error("Cannot grow NBD nodes");
    co_return Result<void>{};
}

Task<Result<void>> NbdDevice::read(std::uint64_t offset, IoSpans to) {
    std::uint64_t length = to.size_bytes(), longest = longest_transfer();
    CO_TRY(check_range(offset, length, info_.size_bytes));
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t now = std::min(length - done, longest);
        IoVector part = IoVector::slice(to.parts, done, now);
        ClientRequest request;
        request.command = Command::read;
        request.offset = offset + done;
        request.length = std::uint32_t(now);
        request.to = part.spans().parts;
        CO_TRY(co_await call(request));
        done += now;
    }
    co_return Result<void>{};
}

Task<Result<void>> NbdDevice::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    std::uint64_t length = from.size_bytes(), longest = longest_transfer();
    if (settings_.read_only) co_return Error("Operation not permitted", EPERM);
    CO_TRY(check_range(offset, length, info_.size_bytes));
    bool fua = durability == Durability::fua;
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t now = std::min(length - done, longest);
        IoVector part = IoVector::slice(from.parts, done, now);
        ClientRequest request;
        request.command = Command::write;
        request.flags = fua && can(flag_send_fua) ? command_fua : 0;
        request.offset = offset + done;
        request.length = std::uint32_t(now);
        request.from = part.spans().parts;
        CO_TRY(co_await call(request));
        done += now;
    }
    if (fua && !can(flag_send_fua)) CO_TRY(co_await flush());
    co_return Result<void>{};
}

Task<Result<void>> NbdDevice::flush() {
    if (!can(flag_send_flush)) co_return Result<void>{};
    ClientRequest request;
    request.command = Command::flush;
    Result<void> result = co_await call(request);
    co_return result;
}

Task<Result<void>> NbdDevice::over_range(Command command, std::uint16_t flags, std::uint64_t offset,
                                         std::uint64_t length) {
    CO_TRY(check_range(offset, length, info_.size_bytes));
    while (length > 0) {
        ClientRequest request;
        request.command = command;
        request.flags = flags;
        request.offset = offset;
        request.length = std::uint32_t(std::min<std::uint64_t>(length, longest_range));
        CO_TRY(co_await call(request));
        offset += request.length;
        length -= request.length;
    }
    co_return Result<void>{};
}

Task<Result<void>> NbdDevice::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    if (settings_.read_only) co_return Error("Operation not permitted", EPERM);
    if (!can(flag_send_write_zeroes) || (flags.no_fallback && !can(flag_send_fast_zero)))
        co_return Error("Operation not supported", ENOTSUP);
    bool fua = flags.durability == Durability::fua;
    unsigned bits = (flags.may_unmap ? 0 : command_no_hole) | (flags.no_fallback ? command_fast_zero : 0) |
                    (fua && can(flag_send_fua) ? command_fua : 0);
    CO_TRY(co_await over_range(Command::write_zeroes, std::uint16_t(bits), offset, length));
    if (fua && !can(flag_send_fua)) CO_TRY(co_await flush());
    co_return Result<void>{};
}

Task<Result<void>> NbdDevice::discard(std::uint64_t offset, std::uint64_t length) {
    if (settings_.read_only) co_return Error("Operation not permitted", EPERM);
    if (!can(flag_send_trim) || !settings_.unmap) co_return Result<void>{};
    Result<void> result = co_await over_range(Command::trim, 0, offset, length);
    co_return result;
}

Task<Result<BlockStatus>> NbdDevice::status(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check_range(offset, length, info_.size_bytes));
    std::vector<Extent> extents;
    ClientRequest request;
    request.command = Command::block_status;
    request.flags = command_req_one;
    request.offset = offset;
    request.length = std::uint32_t(std::min<std::uint64_t>(length, longest_range));
    request.extents = &extents;
    CO_TRY(co_await call(request));
    BlockStatus status;
    status.length = std::min<std::uint64_t>(extents[0].length, request.length);
    status.allocated = true;
    status.zero = (extents[0].flags & state_zero) != 0;
    status.data = (extents[0].flags & state_hole) == 0;
    co_return status;
}

} // namespace vmm::block::nbd
