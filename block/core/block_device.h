// BlockDevice: an array of bytes that can be read, written and flushed: a host file, an image, an NBD export, a filter.
#pragma once
#include "block/core/io_spans.h"
#include "block/core/task.h"

#include <cstdint>

namespace vmm::block {

class SparseCapable;
class AllocationMap;
class Resizable;
class Snapshots;
class Checkable;
class CompressedWrites;
class InfoSource;
class Amendable;
class BackingLink;
class Emptyable;
class DirtyBitmaps;
class DebugEvents;

// What a device can do beyond reading and writing; null: not at all. Pointers live as long as the device. Interfaces
// are in block/core/capabilities.h.
struct Capabilities {
    SparseCapable* sparse = nullptr;
    AllocationMap* allocation = nullptr;
    Resizable* resizable = nullptr;
    Snapshots* snapshots = nullptr;
    Checkable* checkable = nullptr;
    CompressedWrites* compressed = nullptr;
    InfoSource* info = nullptr;
    Amendable* amendable = nullptr;
    BackingLink* backing_link = nullptr;
    DirtyBitmaps* bitmaps = nullptr;
    Emptyable* emptyable = nullptr;
    DebugEvents* debug = nullptr;
};

// Sizes a request must or should keep to; all in bytes.
struct Limits {
    std::uint32_t request_alignment = 1;     // offset and length are multiples of it (a power of two), or EINVAL
    std::uint32_t memory_alignment = 1;      // so are buffer addresses and the length of each part
    std::uint32_t opt_transfer = 0;          // best request size, 0: no preference (a format's cluster size)
    std::uint64_t max_transfer = 1ull << 30; // longest read or write
    std::uint64_t max_zeroes = INT64_MAX;    // longest write_zeroes / discard
    std::uint32_t zeroes_alignment = 1;      // write_zeroes is cheap on multiples of it
    std::uint32_t discard_alignment = 1;     // discard frees only whole multiples of it
    // A host file: writes past the end extend it, reads past the end give zeroes (size_bytes() follows).
    bool growable = false;
};

enum class Durability : std::uint8_t {
    cached, // reaches stable storage by a later flush()
    fua,    // is on stable storage when the request finishes
};

// Single-threaded: every call and every completion on the loop's thread. Requests may overlap in time: a device orders
// those that touch the same bytes itself as far as its own metadata needs it; the result of overlapping writes is one
// of theirs, byte by byte. Offsets and lengths have byte granularity within limits(). A request that reaches beyond
// size_bytes() is an error (EIO) unless limits().growable; nothing is transferred then. Errors carry an errno_value()
// (EIO if nothing better). Destroying a device with requests in flight is a programming error: drain first.
class BlockDevice {
public:
    virtual ~BlockDevice() = default;

    virtual std::uint64_t size_bytes() const = 0;
    virtual bool read_only() const = 0;
    virtual Limits limits() const = 0;
    virtual Capabilities capabilities() = 0;
    // Fills all of `to` from `offset` on.
    virtual Task<Result<void>> read(std::uint64_t offset, IoSpans to) = 0;
    // Writes all of `from`. A read-only device answers EPERM ("Operation not permitted").
    virtual Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) = 0;
    // When it finishes, every write that had finished before the call is on stable storage (as far as the cache mode
    // promises).
    virtual Task<Result<void>> flush() = 0;
};

// Conveniences over flat buffers; the memory must live until the task is done.
Task<Result<void>> read_bytes(BlockDevice& device, std::uint64_t offset, Bytes to);
Task<Result<void>> write_bytes(BlockDevice& device, std::uint64_t offset, ConstBytes from,
                               Durability durability = Durability::cached);

// An error unless [offset, offset + length) lies in `size` bytes without wrapping.
Result<void> check_range(std::uint64_t offset, std::uint64_t length, std::uint64_t size);

} // namespace vmm::block
