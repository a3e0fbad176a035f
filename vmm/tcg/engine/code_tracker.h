// CodeTracker: which guest memory holds translated code, for all vCPUs of a machine, and who must hear of writes to it.
//
// Protocol. A page with code carries PageNote::page_has_code, which keeps it out of every vCPU's TLB write entries,
// so each write to it takes a slow path that ends in code_written(). Within the page, 64-byte granules with code
// have a bit. A vCPU that translates from a page without the note sets the note, then waits until every other vCPU
// has been out of guest code once (and so has dropped its write entries), then reads the bytes; others that
// translate from the page meanwhile wait as well. "Guest code" here is whatever writes through the TLB, the frames
// of events included. Who writes without one (DMA, slow paths) writes first and looks at the note behind a full
// barrier (RamBlock::written), as the translator reads the bytes behind setting it: one of the two sees the other.
// Writers of a granule with code drop the overlapping blocks of all vCPUs: their own at once, the others' at those
// vCPUs' next safe point, which they are made to reach.
#pragma once
#include "vmm/base/thread_annotations.h"
#include "vmm/memory/ram.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace vmm::tcg {

// A vCPU as the tracker sees it.
class CodeUser {
public:
    virtual ~CodeUser() = default;
    // Drop every block overlapping the granules `mask` of the page. Called on the user's own thread.
    virtual void drop_code(RamBlock& block, std::uint64_t page_offset, std::uint64_t mask) = 0;
    // Any thread: have the user call take_invalidations() and forget TLB write entries soon.
    virtual void request_safe_point() = 0;
    // Whether the vCPU is executing guest code now (any thread).
    virtual bool in_guest() const = 0;
    // Counts entries into guest code (any thread): a change, or !in_guest(), means a safe point was passed.
    virtual std::uint64_t guest_entries() const = 0;
};

class CodeTracker final : public CodeWriteObserver {
public:
    // `user` must be removed before it dies. Before the vCPU runs.
    void add(CodeUser& user);
    void remove(CodeUser& user);

    // `user`, on its own thread and not in guest code, is about to translate from `page_offset`; afterwards no write to
    // the page escapes. Returns true when the page got the note just now.
    bool prepare_page(CodeUser& user, RamBlock& block, std::uint64_t page_offset);
    // Marks granules as holding code of somebody; the bytes are to be compared again after it. As prepare_page, for
    // the page may have lost its note meanwhile, with its last other granule: true when it got it just now.
    bool publish(CodeUser& user, RamBlock& block, std::uint64_t page_offset, std::uint64_t mask);
    // Whether [offset, offset+size) touches a granule with code. Any thread, lock-free.
    bool has_code(RamBlock& block, std::uint64_t offset, std::uint64_t size) const;
    // The thread's own user, so that code_written can act at once for it. Null on other threads.
    static void set_thread_user(CodeUser* user);

    void code_written(RamBlock& block, std::uint64_t offset, std::uint64_t size) override;
    // What other threads wrote since the last call; to be called by the user's thread at a safe point.
    void take_invalidations(CodeUser& user);

    // Bit mask of the granules of one page that [offset, offset+size) touches; the range lies within the page.
    static std::uint64_t granules(std::uint64_t offset, std::uint64_t size);

private:
    struct Region {
        RamBlock* block;
        std::unique_ptr<std::atomic<std::uint64_t>[]> granules; // a word a page
    };
    struct Invalidation {
        RamBlock* block;
        std::uint64_t page_offset, mask;
    };
    struct User {
        CodeUser* user;
        std::vector<Invalidation> waiting;
    };
    // A page that has the note, while some vCPU may still hold a write entry for it.
    struct Settling {
        RamBlock* block;
        std::uint64_t page_offset;
        bool operator==(Settling const&) const = default;
    };
    bool note_page(CodeUser& user, RamBlock& block, std::uint64_t page_offset, std::uint64_t mask);
    Region* find(RamBlock& block) const;
    std::atomic<std::uint64_t>& word(RamBlock& block, std::uint64_t page_offset) const;

    mutable Mutex mutex_;
    // Regions are only ever added; readers walk an immutable snapshot.
    std::vector<std::unique_ptr<Region>> regions_ VMM_GUARDED_BY(mutex_);
    std::vector<std::unique_ptr<std::vector<Region*>>> snapshots_ VMM_GUARDED_BY(mutex_);
    std::atomic<std::vector<Region*> const*> current_{nullptr};
    std::vector<User> users_ VMM_GUARDED_BY(mutex_);
    std::vector<Settling> settling_ VMM_GUARDED_BY(mutex_); // an entry for each that waits
};

} // namespace vmm::tcg
