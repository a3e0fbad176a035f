// OpenOptions: everything a user can say about how an image is opened.
#pragma once
#include "block/core/option_values.h"
#include "vmm/base/result.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vmm::block {

// How host caching and flushes are treated (`cache=`, `-t`).
enum class CacheMode : std::uint8_t {
    writeback,    // page cache, flush honoured
    none,         // O_DIRECT, flush honoured
    unsafe,       // page cache, flush ignored
    directsync,   // O_DIRECT, every write flushed before it completes
    writethrough, // page cache, every write flushed before it completes
};
constexpr bool bypasses_page_cache(CacheMode m) { return m == CacheMode::none || m == CacheMode::directsync; }
constexpr bool writes_through(CacheMode m) { return m == CacheMode::directsync || m == CacheMode::writethrough; }

// automatic: io_uring if the host has it; native: threads, but only with O_DIRECT, as QEMU asks.
enum class AioEngine : std::uint8_t { automatic, threads, native, io_uring };
enum class DiscardMode : std::uint8_t { ignore, unmap };
enum class DetectZeroes : std::uint8_t { off, on, unmap };
enum class LockMode : std::uint8_t { automatic, on, off }; // automatic: on where the file system can lock

// Each by its QEMU spelling ("Invalid cache option: x", ...).
Result<CacheMode> parse_cache_mode(std::string_view text);
Result<AioEngine> parse_aio_engine(std::string_view text);
Result<DiscardMode> parse_discard_mode(std::string_view text);
Result<DetectZeroes> parse_detect_zeroes(std::string_view text);

// Where the backing chain comes from.
enum class BackingChoice : std::uint8_t {
    from_image, // as the image says
    none,       // open without (reads of unallocated parts give zeroes); `info`, `check`, `rebase -u`
    override_,  // backing_filename / backing_format below instead
};

struct OpenOptions {
    // A path or "protocol:rest" or "json:{...}"; or empty, when `tree` says it all (file.filename=..., --image-opts).
    std::string filename;
    // Flattened driver options: "file.driver", "file.filename", "backing.file.filename", "encrypt.key-secret",
    // "lazy-refcounts", ...
    OptionValues tree;
    std::string format; // empty: probe
    bool read_only = false;
    // Open read-only when write access is denied (auto-read-only).
    bool auto_read_only = false;
    CacheMode cache = CacheMode::writeback;
    AioEngine aio = AioEngine::automatic;
    DiscardMode discard = DiscardMode::ignore;
    DetectZeroes detect_zeroes = DetectZeroes::off;
    LockMode locking = LockMode::automatic;
    bool share_rw = false;    // other writers are welcome
    bool force_share = false; // -U: take no locks that could fail; read-only only
    BackingChoice backing = BackingChoice::from_image;
    std::string backing_filename;
    std::string backing_format; // empty: probe
    // Open for check: do not refuse or repair a dirty or corrupt image.
    bool for_check = false;
    // Open the metadata only, without an external data file (`info`).
    bool no_io = false;
    // The image was already warned about or must not be: no 3-line raw WARNING.
    bool quiet_probe = false;
};

// Turns "json:{...}" and "driver=qcow2,file.filename=x" (image_opts) into options: fills filename, format, tree.
// "json:" text: nested objects flatten to dotted names.
Result<OpenOptions> parse_image_opts(std::string_view text);
Result<OptionValues> parse_json_options(std::string_view json_text);

} // namespace vmm::block
