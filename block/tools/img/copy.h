// CopyJob: the bytes of one or several images into another: several requests in flight, holes skipped.
#pragma once
#include "block/core/buffer_pool.h"
#include "block/core/chain.h"
#include "block/core/image.h"
#include "block/core/sync.h"
#include "block/tools/common/interrupts.h"
#include "block/tools/common/pause.h"
#include "block/tools/common/progress.h"
#include "block/tools/common/tool.h"

#include <functional>
#include <vector>

namespace vmm::block {

struct CopyOptions {
    std::size_t in_flight = 8;
    bool out_of_order = false; // writes need not begin in order of offset
    bool compress = false;
    std::uint64_t sparse_bytes = 4096; // runs of zeroes at least this long are not written as data; 0: write all
    bool target_is_zero = false;       // unwritten parts of the target read as zero
    Image* source_base = nullptr;      // (with one source) leave what this layer and those below it decide
    bool salvage = false;              // what cannot be read becomes zeroes, with a warning
    std::uint64_t bytes_per_second = 0;
    std::uint64_t source_offset = 0; // first byte to copy
    std::uint64_t length = 0;        // bytes to copy
};

// Copies `length` bytes from `source_offset` of the concatenated sources to the beginning of `target`. Everything it is
// given outlives it; one run() at a time. Loop thread.
class CopyJob {
public:
    CopyJob(Tool& tool, std::vector<Image*> sources, Image& target, CopyOptions options, Progress& progress,
            Interrupts& interrupts);
    // Stops at the first error (the target holds garbage then) and when interrupted (EINTR).
    Task<Result<void>> run();

private:
    enum class Kind : std::uint8_t { data, zero, leave };
    struct Piece {
        std::uint64_t offset = 0, length = 0; // within the concatenated sources
        Kind kind = Kind::data;
    };
    Task<Result<Piece>> next_piece(std::uint64_t offset);
    Task<Result<std::uint64_t>> count_data();
    Task<Result<void>> copy(std::uint64_t offset, std::uint64_t length, std::uint64_t ticket, bool zero);
    Task<Result<void>> read(std::uint64_t offset, Bytes to);
    Task<Result<void>> salvage(Image& source, std::uint64_t at, Bytes to);
    Task<Result<void>> write(std::uint64_t at, ConstBytes from);
    Task<Result<void>> write_run(std::uint64_t at, ConstBytes from, bool zero);
    Task<Result<void>> await_write(Task<Result<void>> write, std::uint64_t ticket);
    void end_turn(std::uint64_t ticket);
    // The source that holds `offset`, and where it begins.
    std::pair<Image*, std::uint64_t> source_at(std::uint64_t offset) const;

    Tool& tool_;
    std::vector<Image*> sources_;
    Image& target_;
    CopyOptions options_;
    Progress& progress_;
    Interrupts& interrupts_;
    RateLimit rate_;
    std::uint64_t chunk_bytes_, granularity_;
    std::optional<BufferPool> buffers_; // of chunk_bytes_
    std::uint64_t turn_ = 0;            // the ticket whose write may begin
    AsyncCondition turn_changed_;
};

} // namespace vmm::block
