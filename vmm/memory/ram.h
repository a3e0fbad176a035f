// RamBlock: a piece of guest RAM or ROM in host memory, with per-page notes for those who watch writes.
#pragma once
#include "vmm/base/result.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace vmm {

inline constexpr std::uint64_t page_size = 4096;
inline constexpr unsigned page_bits = 12;

// Notes kept for each page of a RamBlock. Writers that do not go through a CPU engine's fast path (DMA, slow path) look
// at them before writing; engines keep a page with any `watched` note out of their write fast path.
enum PageNote : std::uint8_t {
    page_has_code = 1,  // some engine translated code from this page: a write must be told to the code observers
    page_log_clean = 2, // dirty logging is on and the page has not been written since the last sync
};

// Told about writes to pages with page_has_code. Called on the writing thread, after the bytes are in memory, possibly
// without the device lock; implementations are thread-safe.
class CodeWriteObserver {
public:
    virtual ~CodeWriteObserver() = default;
    virtual void code_written(class RamBlock& block, std::uint64_t offset, std::uint64_t size) = 0;
};

// Memory is anonymous, zero-filled and untouched until used; the host may use huge pages for it, which it commonly does
// not for memory that has a descriptor. The mapping lives as long as the object; addresses are stable.
class RamBlock {
public:
    // `name` is QEMU's ("pc.ram"), used in messages and snapshots. Size is rounded up to a page. Fails when the host
    // cannot map that much, saying how much is available.
    static Result<std::unique_ptr<RamBlock>> create(std::string name, std::uint64_t size);
    ~RamBlock();
    RamBlock(RamBlock const&) = delete;
    RamBlock& operator=(RamBlock const&) = delete;

    std::string const& name() const { return name_; }
    std::uint8_t* host() const { return host_; }
    std::uint64_t size() const { return size_; }

    std::atomic<std::uint8_t>& notes(std::uint64_t offset) const { return notes_[offset >> page_bits]; }
    void set_code_observer(CodeWriteObserver* observer) { observer_.store(observer, std::memory_order_release); }

    // To be called after writing [offset, offset+size) by other means than an engine's fast path: marks pages dirty and
    // tells the code observer. Cheap when no page has notes.
    void written(std::uint64_t offset, std::uint64_t size);

    // Dirty logging (screen memory, snapshots). start: every page counts as clean from now on.
    void start_dirty_log();
    void stop_dirty_log();
    bool dirty_log() const { return logging_; }
    bool page_dirty(std::uint64_t offset) const {
        return !(notes(offset).load(std::memory_order_acquire) & page_log_clean);
    }
    // Marks the page clean again; returns whether it was dirty. Engines must drop their write fast path for it: the
    // caller tells them through AddressSpace::notify_dirty_log_changed.
    bool test_and_clear_dirty(std::uint64_t offset);

private:
    RamBlock(std::string name, std::uint8_t* host, std::uint64_t size);
    std::string name_;
    std::uint8_t* host_;
    std::uint64_t size_;
    std::unique_ptr<std::atomic<std::uint8_t>[]> notes_;
    std::atomic<CodeWriteObserver*> observer_{nullptr};
    bool logging_ = false;
};

} // namespace vmm
