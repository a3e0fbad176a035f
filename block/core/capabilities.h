// What some devices can do beyond reading and writing: small interfaces, found through BlockDevice::capabilities().
#pragma once
#include "block/core/block_device.h"
#include "block/core/option_values.h"
#include "block/core/value.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace vmm::block {

struct ZeroFlags {
    bool may_unmap = false;   // storage may be given back
    bool no_fallback = false; // ENOTSUP rather than writing zeroes out byte by byte
    Durability durability = Durability::cached;
};

// Zeroes without sending them, and bytes that are no longer needed.
class SparseCapable {
public:
    virtual ~SparseCapable() = default;
    // The range reads as zero afterwards. Any alignment within limits(); the device handles unaligned ends.
    virtual Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) = 0;
    // A hint: afterwards the range reads as anything (its old content, zeroes). Unaligned ends are left alone.
    virtual Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) = 0;
};

// Zeroes through SparseCapable where the device has it, else by writing zero buffers (unless flags.no_fallback).
Task<Result<void>> write_zeroes(BlockDevice& device, std::uint64_t offset, std::uint64_t length, ZeroFlags flags);
// Discards where the device can; success otherwise.
Task<Result<void>> discard(BlockDevice& device, std::uint64_t offset, std::uint64_t length);

// What one stretch of a device is.
struct BlockStatus {
    std::uint64_t length = 0; // bytes from the asked offset on that this holds for; > 0 while offset < size
    bool allocated = false;   // this layer decides the content (else the backing file, or zeroes if there is none)
    bool zero = false;        // reads as zero
    bool data = false;        // there is stored data (with zero: preallocated and known zero)
    bool compressed = false;  // stored compressed: host_offset is not usable
    // Where the bytes lie unchanged in the host file, if they do, and which file that is.
    std::optional<std::uint64_t> host_offset;
    std::string host_file;
    unsigned depth = 0; // layers below the asked one that decide the content (filled in by chain_status)
};

// Which parts are allocated, zero, data, and where they lie.
class AllocationMap {
public:
    virtual ~AllocationMap() = default;
    // The status of the longest stretch from `offset` that is cheap to find, at most `length`; length > 0 and in range.
    // This layer only: never asks the backing file.
    virtual Task<Result<BlockStatus>> status(std::uint64_t offset, std::uint64_t length) = 0;
};

enum class Preallocation : std::uint8_t { off, metadata, falloc, full };
// "off", ..., QEMU's names. Parse: "Invalid parameter 'x'" and the allowed values.
std::string_view preallocation_name(Preallocation mode);
Result<Preallocation> parse_preallocation(std::string_view name);

struct ResizeRequest {
    std::uint64_t new_size_bytes = 0;
    Preallocation preallocation = Preallocation::off;
    bool shrink_ok = false; // `resize --shrink`
    bool exact = true;      // false: a host device larger than new_size is good enough
};
class Resizable {
public:
    virtual ~Resizable() = default;
    // New bytes read as zero (never as backing content).
    virtual Task<Result<void>> resize(ResizeRequest request) = 0;
};

// An internal snapshot, as `snapshot -l` shows it.
struct SnapshotInfo {
    std::string id;
    std::string name;
    std::uint64_t vm_state_size_bytes = 0;
    std::uint64_t disk_size_bytes = 0;
    std::int64_t date_seconds = 0; // since the epoch, UTC
    std::uint32_t date_nanoseconds = 0;
    std::uint64_t vm_clock_nanoseconds = 0;
    std::optional<std::uint64_t> icount; // nullopt: not recorded
};
// What a caller that makes a snapshot knows; the device picks the id.
struct SnapshotRequest {
    std::string name;
    std::uint64_t vm_state_size_bytes = 0; // bytes written by write_vm_state just before
    std::int64_t date_seconds = 0;
    std::uint32_t date_nanoseconds = 0;
    std::uint64_t vm_clock_nanoseconds = 0;
    std::optional<std::uint64_t> icount;
};

// Snapshots stored inside the image. No other request may be in flight during create, apply and remove (the caller
// drains).
class Snapshots {
public:
    virtual ~Snapshots() = default;
    virtual std::vector<SnapshotInfo> list() const = 0;
    virtual Task<Result<void>> create(SnapshotRequest request) = 0;
    // `name_or_id`: an id first, then a name, as `qemu-img snapshot`. Not found: ENOENT.
    virtual Task<Result<void>> apply(std::string name_or_id) = 0;
    virtual Task<Result<void>> remove(std::string name_or_id) = 0;
    // Makes reads answer with the snapshot's content; the device is read-only from then on (`convert -l`).
    virtual Task<Result<void>> load_read_only(std::string name_or_id) = 0;
    // The VM-state area of the active layer, addressed from 0: it becomes part of the next snapshot created and is back
    // after apply. Reading past what was written gives zeroes.
    virtual Task<Result<void>> read_vm_state(std::uint64_t offset, IoSpans to) = 0;
    virtual Task<Result<void>> write_vm_state(std::uint64_t offset, ConstIoSpans from) = 0;
};

enum class RepairMode : std::uint8_t { none, leaks, all };
struct CheckReport {
    std::uint64_t corruptions = 0, leaks = 0, check_errors = 0;
    std::uint64_t corruptions_fixed = 0, leaks_fixed = 0;
    std::uint64_t image_end_offset = 0;
    std::uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0, compressed_clusters = 0;
};
class Checkable {
public:
    virtual ~Checkable() = default;
    // Walks all metadata; `message` gets one line (no line end) per finding, worded as QEMU does. A report with errors
    // in it is a success; the Result fails only when the check could not be carried out.
    virtual Task<Result<CheckReport>> check(RepairMode repair, std::function<void(std::string_view)> message) = 0;
};

// Writing compressed clusters (`convert -c`, `backup`).
class CompressedWrites {
public:
    virtual ~CompressedWrites() = default;
    virtual std::uint32_t cluster_size_bytes() const = 0;
    // One whole cluster, or the last partial one; not yet allocated. Several may be in flight; they are compressed on
    // the worker pool and stored in order of completion.
    virtual Task<Result<void>> write_compressed(std::uint64_t offset, ConstIoSpans from) = 0;
    // After the last one (streamOptimized VMDK writes its footer here); nothing may be written afterwards.
    virtual Task<Result<void>> finish_compressed() = 0;
};

// What `info` prints about a format beyond the common lines (see image_info.h).
struct FormatInfo {
    std::optional<std::uint64_t> cluster_size_bytes;
    bool compressed = false;
    bool encrypted = false;
    std::optional<bool> dirty; // nullopt: the format has no such flag
    // "format-specific": {"type": ..., "data": ...}; empty type: none. Keys are QMP's ("lazy-refcounts").
    std::string specific_type;
    Value specific_data;
};
class InfoSource {
public:
    virtual ~InfoSource() = default;
    virtual Task<Result<FormatInfo>> format_info() = 0;
};

// Changing options of an existing image (`amend`).
class Amendable {
public:
    virtual ~Amendable() = default;
    struct Request {
        OptionValues changes;                                                  // only what is present changes
        bool force = false;                                                    // also what may lose data
        std::function<void(std::uint64_t done, std::uint64_t total)> progress; // may be called
    };
    virtual Task<Result<void>> amend(Request request) = 0;
};

// Forgetting everything this layer holds, so that all of it comes from the backing file again (`commit`).
class Emptyable {
public:
    virtual ~Emptyable() = default;
    // No other request may be in flight. Snapshots keep what they hold. The file shrinks where it can.
    virtual Task<Result<void>> make_empty() = 0;
};

// Changing the name of the backing file stored in the image (`rebase`); empty: none. Does not touch any data.
class BackingLink {
public:
    virtual ~BackingLink() = default;
    virtual Task<Result<void>> change_backing(std::string filename, std::string format) = 0;
};

struct BitmapInfo {
    std::string name;
    std::uint32_t granularity_bytes = 65536;
    bool enabled = true; // "auto": records writes
    bool in_use = false; // was not closed properly: its content is not to be trusted
    bool persistent = true;
};
// Dirty bitmaps kept in or beside an image.
class DirtyBitmaps {
public:
    virtual ~DirtyBitmaps() = default;
    virtual std::vector<BitmapInfo> bitmaps() const = 0;
    virtual Task<Result<void>> add_bitmap(BitmapInfo bitmap) = 0;
    virtual Task<Result<void>> remove_bitmap(std::string name) = 0;
    virtual Task<Result<void>> clear_bitmap(std::string name) = 0;
    virtual Task<Result<void>> set_bitmap_enabled(std::string name, bool enabled) = 0;
    // ORs the stretch into the bitmap (`bitmap --merge` walks the source with next_dirty).
    virtual Task<Result<void>> mark_dirty(std::string name, std::uint64_t offset, std::uint64_t length) = 0;
    struct Stretch {
        std::uint64_t offset, length;
        bool dirty;
    };
    // The stretch of equal state that starts at `offset`.
    virtual Task<Result<Stretch>> bitmap_status(std::string name, std::uint64_t offset) = 0;
};

} // namespace vmm::block
