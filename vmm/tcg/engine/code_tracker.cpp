#include "vmm/tcg/engine/code_tracker.h"

#include <algorithm>
#include <thread>

namespace vmm::tcg {

namespace {
// The one piece of per-thread state: which vCPU this thread runs. A thread belongs to one machine.
thread_local CodeUser* thread_user = nullptr;
} // namespace

void CodeTracker::set_thread_user(CodeUser* user) { thread_user = user; }

void CodeTracker::add(CodeUser& user) {
    MutexLock lock(mutex_);
    users_.push_back({&user, {}});
}

void CodeTracker::remove(CodeUser& user) {
    MutexLock lock(mutex_);
    std::erase_if(users_, [&](User const& u) { return u.user == &user; });
}

std::uint64_t CodeTracker::granules(std::uint64_t offset, std::uint64_t size) {
    unsigned first = unsigned(offset & (page_size - 1)) >> 6,
             last = unsigned((offset & (page_size - 1)) + size - 1) >> 6;
    if (last > 63) last = 63;
    return (~std::uint64_t(0) >> (63 - last)) & (~std::uint64_t(0) << first);
}

CodeTracker::Region* CodeTracker::find(RamBlock& block) const {
    auto const* regions = current_.load(std::memory_order_acquire);
    if (!regions) return nullptr;
    for (Region* region : *regions)
        if (region->block == &block) return region;
    return nullptr;
}

std::atomic<std::uint64_t>& CodeTracker::word(RamBlock& block, std::uint64_t page_offset) const {
    Region* region = find(block);
    VMM_ASSERT(region);
    return region->granules[page_offset >> page_bits];
}

bool CodeTracker::has_code(RamBlock& block, std::uint64_t offset, std::uint64_t size) const {
    Region* region = find(block);
    if (!region) return false;
    for (std::uint64_t at = offset; at < offset + size;) {
        std::uint64_t page = at & ~(page_size - 1), end = std::min(offset + size, page + page_size);
        if (region->granules[page >> page_bits].load(std::memory_order_acquire) & granules(at, end - at)) return true;
        at = end;
    }
    return false;
}

bool CodeTracker::note_page(CodeUser& user, RamBlock& block, std::uint64_t page_offset, std::uint64_t mask) {
    std::vector<std::pair<CodeUser*, std::uint64_t>> waiting_for;
    {
        MutexLock lock(mutex_);
        if (!find(block)) {
            auto region = std::make_unique<Region>();
            region->block = &block;
            region->granules = std::make_unique<std::atomic<std::uint64_t>[]>(block.size() >> page_bits);
            regions_.push_back(std::move(region));
            auto snapshot = std::make_unique<std::vector<Region*>>();
            for (auto const& r : regions_) snapshot->push_back(r.get());
            current_.store(snapshot.get(), std::memory_order_release);
            snapshots_.push_back(std::move(snapshot));
            block.set_code_observer(this);
        }
        if (mask) word(block, page_offset).fetch_or(mask, std::memory_order_seq_cst);
        // A page that others are still being driven out of is as good as new: whoever got there first has not heard of
        // them all yet.
        Settling page{&block, page_offset};
        bool noted = block.notes(page_offset).fetch_or(page_has_code, std::memory_order_seq_cst) & page_has_code;
        if (noted && std::ranges::find(settling_, page) == settling_.end()) return false;
        settling_.push_back(page);
        for (User& other : users_) {
            if (other.user == &user) continue;
            // First the request: who enters guest code after it sees it, and drops old write entries before a guest
            // instruction runs. Only those that may have entered before it are waited for.
            other.user->request_safe_point();
            std::uint64_t entries = other.user->guest_entries();
            if (!other.user->in_guest()) continue;
            waiting_for.push_back({other.user, entries});
        }
    }
    for (auto [other, entries] : waiting_for)
        while (other->in_guest() && other->guest_entries() == entries) std::this_thread::yield();
    MutexLock lock(mutex_);
    settling_.erase(std::ranges::find(settling_, Settling{&block, page_offset}));
    return true;
}

bool CodeTracker::prepare_page(CodeUser& user, RamBlock& block, std::uint64_t page_offset) {
    return note_page(user, block, page_offset, 0);
}

bool CodeTracker::publish(CodeUser& user, RamBlock& block, std::uint64_t page_offset, std::uint64_t mask) {
    return note_page(user, block, page_offset, mask);
}

void CodeTracker::code_written(RamBlock& block, std::uint64_t offset, std::uint64_t size) {
    for (std::uint64_t at = offset; at < offset + size;) {
        std::uint64_t page = at & ~(page_size - 1), end = std::min(offset + size, page + page_size);
        std::uint64_t mask = granules(at, end - at);
        {
            // Under the mutex that granules are published under: either the bytes just written are seen by who compares
            // after publishing, or the granules are seen here.
            MutexLock lock(mutex_);
            if (!has_code(block, at, end - at)) {
                at = end;
                continue;
            }
            for (User& user : users_) {
                if (user.user == thread_user) continue;
                user.waiting.push_back({&block, page, mask});
                user.user->request_safe_point();
            }
            // Only now: who finds no code here any more need not tell of its own writes, for all have been asked.
            std::uint64_t left = word(block, page).fetch_and(~mask, std::memory_order_seq_cst) & ~mask;
            if (left == 0) block.notes(page).fetch_and(std::uint8_t(~page_has_code), std::memory_order_seq_cst);
        }
        if (thread_user) thread_user->drop_code(block, page, mask);
        at = end;
    }
}

void CodeTracker::take_invalidations(CodeUser& user) {
    std::vector<Invalidation> work;
    {
        MutexLock lock(mutex_);
        for (User& u : users_)
            if (u.user == &user) work.swap(u.waiting);
    }
    for (Invalidation const& item : work) user.drop_code(*item.block, item.page_offset, item.mask);
}

} // namespace vmm::tcg
