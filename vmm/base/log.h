// Log: where messages for a person go. Warnings to standard error under the program's name, traces (`-d`) to their
// file.
#pragma once
#include <fmt/core.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace vmm {

// The classes of `-d`; names are QEMU's. A bit each.
enum class Trace : std::uint32_t {
    in_asm = 1u << 0,       // guest instructions of each block when it is translated
    op = 1u << 1,           // IR of each block
    out_asm = 1u << 2,      // host code of each block
    interrupts = 1u << 3,   // "int": every interrupt and exception before delivery
    cpu = 1u << 4,          // CPU state before each block
    exec = 1u << 5,         // each block entered
    mmu = 1u << 6,          // page-table walks and faults
    unimp = 1u << 7,        // guest used a feature we do not model
    guest_errors = 1u << 8, // guest did something a driver should not do
    reset = 1u << 9,        // "cpu_reset"
};

// Thread-safe. One instance per program run, made by main() and handed down; it has no global instance.
class Log {
public:
    // `program` prefixes warnings: "vmm: warning: ...". Messages go to `out` (not owned; default standard error).
    explicit Log(std::string program, std::FILE* out = stderr);
    ~Log();
    Log(Log const&) = delete;
    Log& operator=(Log const&) = delete;

    template <class... Args> void warn(fmt::format_string<Args...> format, Args&&... args) {
        message("warning: ", fmt::format(format, std::forward<Args>(args)...));
    }
    template <class... Args> void fail(fmt::format_string<Args...> format, Args&&... args) {
        message("", fmt::format(format, std::forward<Args>(args)...));
    }
    // Prints `program: text`.
    void message(std::string_view kind, std::string_view text);

    bool enabled(Trace which) const { return (mask_.load(std::memory_order_relaxed) & std::uint32_t(which)) != 0; }
    void set_trace_mask(std::uint32_t mask) { mask_.store(mask, std::memory_order_relaxed); }
    std::uint32_t trace_mask() const { return mask_.load(std::memory_order_relaxed); }
    // Sends traces to `path` ("-D"); false with errno set when it cannot be opened.
    bool set_trace_file(std::string const& path);
    // Writes one trace text (with its own line ends) if its class is enabled. guest_errors and unimp are limited to
    // `rate_limit` lines a second each so that a hostile guest cannot fill a disk.
    void trace(Trace which, std::string_view text);
    template <class... Args> void guest_error(fmt::format_string<Args...> format, Args&&... args) {
        if (enabled(Trace::guest_errors))
            trace(Trace::guest_errors, fmt::format(format, std::forward<Args>(args)...) + "\n");
    }
    template <class... Args> void unimp(fmt::format_string<Args...> format, Args&&... args) {
        if (enabled(Trace::unimp)) trace(Trace::unimp, fmt::format(format, std::forward<Args>(args)...) + "\n");
    }
    static constexpr unsigned rate_limit = 1000;

private:
    std::string program_;
    std::FILE* out_;
    std::FILE* trace_file_ = nullptr; // owned when not null
    std::atomic<std::uint32_t> mask_{0};
    std::mutex mutex_; // guards everything below and the order of lines
    std::int64_t window_ = 0;
    unsigned in_window_ = 0;
};

} // namespace vmm
