#include "block/tools/img/copy.h"

#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block {

namespace {
// Small enough that several stay in the CPU's caches between being read and written, large enough for any disk.
constexpr std::uint64_t default_chunk = 256 * KiB, salvage_bytes = 512;
constexpr std::uint64_t largest_cluster = 2 * MiB;

// The size of a cluster in which the target allocates, or 1.
std::uint64_t cluster_of(Image& target) {
    std::uint64_t wanted = std::max<std::uint64_t>(target.limits().opt_transfer, 1);
    return is_power_of_two(wanted) && wanted <= largest_cluster ? wanted : 1;
}
} // namespace

CopyJob::CopyJob(Tool& tool, std::vector<Image*> sources, Image& target, CopyOptions options, Progress& progress,
                 Interrupts& interrupts)
    : tool_(tool), sources_(std::move(sources)), target_(target), options_(options), progress_(progress),
      interrupts_(interrupts), rate_(tool.loop(), options.bytes_per_second), chunk_bytes_(default_chunk),
      granularity_(std::max(options.sparse_bytes, cluster_of(target))) {
    if (options_.compress) chunk_bytes_ = granularity_ = target.capabilities().compressed->cluster_size_bytes();
    chunk_bytes_ = std::max(chunk_bytes_, granularity_);
    buffers_.emplace(chunk_bytes_);
}

std::pair<Image*, std::uint64_t> CopyJob::source_at(std::uint64_t offset) const {
    std::uint64_t start = 0;
    for (Image* source : sources_) {
        if (offset - start < source->size_bytes()) return {source, start};
        start += source->size_bytes();
    }
    VMM_UNREACHABLE();
}

// What lies at `offset` (whole sectors at least), up to the end of its stretch.
Task<Result<CopyJob::Piece>> CopyJob::next_piece(std::uint64_t offset) {
    std::uint64_t end = options_.source_offset + options_.length;
    auto [source, start] = source_at(offset);
    std::uint64_t length = std::min(end, start + source->size_bytes()) - offset;
    Piece piece{offset, length, Kind::data};
    if (options_.sparse_bytes == 0) co_return piece;
    Result<BlockStatus> status = co_await chain_status(*source, offset - start, length, options_.source_base);
    if (!status.ok()) {
        if (!options_.salvage) co_return status.error().with_prefix("error while reading block status");
        piece.length = std::min(length, chunk_bytes_);
        co_return piece;
    }
    piece.length = std::min(length, status->length);
    if (status->zero)
        piece.kind = Kind::zero;
    else if (!status->allocated && options_.source_base)
        piece.kind = Kind::leave;
    co_return piece;
}

Task<Result<std::uint64_t>> CopyJob::count_data() {
    std::uint64_t data = 0, end = options_.source_offset + options_.length;
    for (std::uint64_t at = options_.source_offset; at < end;) {
        CO_TRY(interrupts_.check());
        CO_TRY_ASSIGN(Piece piece, co_await next_piece(at));
        bool counts = piece.kind == Kind::data || (piece.kind == Kind::zero && !options_.target_is_zero);
        if (counts) data += piece.length;
        at += piece.length;
    }
    co_return data;
}

Task<Result<void>> CopyJob::run() {
    CO_TRY_ASSIGN(std::uint64_t total, co_await count_data());
    progress_.start(total);
    TaskGroup group(options_.in_flight);
    std::uint64_t ticket = 0, end = options_.source_offset + options_.length;
    std::optional<Error> failure;
    for (std::uint64_t at = options_.source_offset; at < end && !failure && !group.failed();) {
        if (Result<void> go = interrupts_.check(); !go.ok()) {
            failure = go.error();
            break;
        }
        Result<Piece> found = co_await next_piece(at);
        if (!found.ok()) {
            failure = found.error();
            break;
        }
        Piece piece = *found;
        // Data is cut on the target's granularity, so that no cluster is written in two parts.
        std::uint64_t target_at = at - options_.source_offset;
        if (piece.kind == Kind::data) piece.length = std::min(piece.length, chunk_bytes_ - target_at % chunk_bytes_);
        // A compressed cluster is written whole: what lies beside the data in it comes along.
        if (options_.compress && piece.kind != Kind::leave) {
            std::uint64_t left = chunk_bytes_ - target_at % chunk_bytes_;
            bool whole_zero = piece.kind == Kind::zero && left == chunk_bytes_ && piece.length >= left;
            if (whole_zero) {
                piece.length = piece.length / chunk_bytes_ * chunk_bytes_;
            } else {
                piece.kind = Kind::data;
                piece.length = left;
            }
        }
        piece.length = std::min(piece.length, end - at);
        at += piece.length;
        if (piece.kind == Kind::leave || (piece.kind == Kind::zero && options_.target_is_zero)) continue;
        co_await rate_.take(piece.length);
        Task<Result<void>> work = copy(piece.offset, piece.length, ticket++, piece.kind == Kind::zero);
        co_await group.start(std::move(work));
    }
    Result<void> finished = co_await group.finish();
    if (!finished.ok()) co_return finished;
    if (failure) co_return *failure;
    if (options_.compress) {
        CO_TRY(co_await target_.capabilities().compressed->finish_compressed());
    }
    co_return Result<void>{};
}

void CopyJob::end_turn(std::uint64_t ticket) {
    if (turn_ != ticket) return;
    ++turn_;
    turn_changed_.notify_all();
}

// Starts `write`, lets the next one begin, and waits for it.
Task<Result<void>> CopyJob::await_write(Task<Result<void>> write, std::uint64_t ticket) {
    struct State {
        std::optional<Result<void>> result;
        AsyncCondition done;
    } state;
    spawn(std::move(write), std::function<void(Result<void>)>([&state](Result<void> r) {
              state.result = std::move(r);
              state.done.notify_all();
          }));
    end_turn(ticket);
    while (!state.result) co_await state.done.wait();
    co_return *state.result;
}

Task<Result<void>> CopyJob::copy(std::uint64_t offset, std::uint64_t length, std::uint64_t ticket, bool zero) {
    std::uint64_t target_at = offset - options_.source_offset;
    BufferPool::Lease buffer;
    Bytes all;
    Result<void> result;
    if (!zero) {
        buffer = buffers_->take();
        if (buffer) {
            all = buffer.bytes(length);
            result = co_await read(offset, all);
        } else {
            result = Error("Out of memory", ENOMEM);
        }
    }
    bool ordered = !options_.out_of_order && !options_.compress;
    while (ordered && turn_ != ticket) co_await turn_changed_.wait();
    if (!result.ok()) {
        end_turn(ticket);
        co_return result.error().with_prefix(fmt::format("error while reading at byte {}", offset));
    }
    ZeroFlags flags;
    flags.may_unmap = true;
    Task<Result<void>> work = zero ? write_zeroes(target_, target_at, length, flags) : write(target_at, all);
    // The first write makes tables the others need; alone, it gets its place in front of them.
    if (ordered && ticket > 0)
        result = co_await await_write(std::move(work), ticket);
    else
        result = co_await std::move(work);
    end_turn(ticket);
    if (!result.ok()) co_return result.error().with_prefix(fmt::format("error while writing at byte {}", target_at));
    progress_.advance(length);
    co_return result;
}

Task<Result<void>> CopyJob::read(std::uint64_t offset, Bytes to) {
    while (!to.empty()) {
        auto [source, start] = source_at(offset);
        std::uint64_t at = offset - start;
        Bytes part = to.first(std::min<std::uint64_t>(to.size(), source->size_bytes() - at));
        Result<void> result = co_await read_bytes(*source, at, part);
        if (!result.ok()) {
            if (!options_.salvage) co_return result;
            CO_TRY(co_await salvage(*source, at, part));
        }
        offset += part.size();
        to = to.subspan(part.size());
    }
    co_return Result<void>{};
}

Task<Result<void>> CopyJob::salvage(Image& source, std::uint64_t at, Bytes to) {
    while (!to.empty()) {
        Bytes part = to.first(std::min<std::size_t>(to.size(), salvage_bytes));
        Result<void> result = co_await read_bytes(source, at, part);
        if (!result.ok()) {
            tool_.warn(fmt::format("error while reading offset {}: {}", at, result.error().message()));
            std::ranges::fill(part, 0);
        }
        at += part.size();
        to = to.subspan(part.size());
    }
    co_return Result<void>{};
}

Task<Result<void>> CopyJob::write_run(std::uint64_t at, ConstBytes from, bool zero) {
    ZeroFlags flags;
    flags.may_unmap = true;
    if (zero && options_.target_is_zero) co_return Result<void>{};
    Result<void> result;
    if (zero)
        result = co_await write_zeroes(target_, at, from.size(), flags);
    else
        result = co_await write_bytes(target_, at, from);
    co_return result;
}

// Writes a buffer as runs of data and of zeroes.
Task<Result<void>> CopyJob::write(std::uint64_t at, ConstBytes from) {
    Result<void> result;
    if (options_.compress) {
        if (options_.target_is_zero && is_zero(from)) co_return result;
        IoVector parts(from);
        result = co_await target_.capabilities().compressed->write_compressed(at, parts.const_spans());
        co_return result;
    }
    if (options_.sparse_bytes == 0) {
        result = co_await write_bytes(target_, at, from);
        co_return result;
    }
    for (std::size_t begin = 0; begin < from.size();) {
        std::size_t stop = begin;
        bool zero = false;
        while (stop < from.size()) {
            std::size_t step = std::min<std::size_t>(granularity_ - (at + stop) % granularity_, from.size() - stop);
            bool this_zero = is_zero(from.subspan(stop, step));
            if (stop > begin && this_zero != zero) break;
            zero = this_zero;
            stop += step;
        }
        ConstBytes run = from.subspan(begin, stop - begin);
        CO_TRY(co_await write_run(at + begin, run, zero));
        begin = stop;
    }
    co_return result;
}

} // namespace vmm::block
