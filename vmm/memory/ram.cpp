#include "vmm/memory/ram.h"

#include "vmm/base/checked.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>

#include <cerrno>

namespace vmm {

Result<std::unique_ptr<RamBlock>> RamBlock::create(std::string name, std::uint64_t size) {
    if (size == 0 || size > (std::uint64_t(1) << 47))
        return error("cannot set up guest memory '{}': invalid size {}", name, size);
    size = align_up(size, page_size);
    struct sysinfo info {};
    sysinfo(&info);
    std::uint64_t total = std::uint64_t(info.totalram) * info.mem_unit,
                  free_now = std::uint64_t(info.freeram + info.bufferram) * info.mem_unit;
    auto cannot = [&](int why) {
        return error_from_errno(why, "cannot set up guest memory '{}' of {} MiB (host: {} MiB in all, {} MiB free)",
                                name, size / MiB, total / MiB, free_now / MiB);
    };
    if (size > total + std::uint64_t(info.totalswap) * info.mem_unit) return cannot(ENOMEM);
    void* host = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (host == MAP_FAILED) return cannot(errno);
    madvise(host, size, MADV_HUGEPAGE);
    // For those who look at /proc/PID/maps; kernels without such names refuse it.
    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, host, size, name.c_str());
    return std::unique_ptr<RamBlock>(new RamBlock(std::move(name), static_cast<std::uint8_t*>(host), size));
}

RamBlock::RamBlock(std::string name, std::uint8_t* host, std::uint64_t size)
    : name_(std::move(name)), host_(host), size_(size),
      notes_(std::make_unique<std::atomic<std::uint8_t>[]>(size >> page_bits)) {}

RamBlock::~RamBlock() { munmap(host_, size_); }

void RamBlock::written(std::uint64_t offset, std::uint64_t size) {
    if (size == 0) return;
    VMM_ASSERT(offset < size_ && size <= size_ - offset);
    bool code = false;
    // A full barrier between the bytes written and the look at the notes: whoever sets a note and then reads the bytes
    // either is seen here or has read the new ones (vmm/tcg/engine/code_tracker.h).
    for (std::uint64_t page = offset >> page_bits; page <= (offset + size - 1) >> page_bits; ++page) {
        std::uint8_t notes = notes_[page].fetch_or(0, std::memory_order_seq_cst);
        if (notes & page_log_clean) notes_[page].fetch_and(std::uint8_t(~page_log_clean), std::memory_order_acq_rel);
        code |= (notes & page_has_code) != 0;
    }
    if (!code) return;
    if (CodeWriteObserver* observer = observer_.load(std::memory_order_acquire))
        observer->code_written(*this, offset, size);
}

void RamBlock::start_dirty_log() {
    logging_ = true;
    for (std::uint64_t page = 0; page < size_ >> page_bits; ++page) notes_[page].fetch_or(page_log_clean);
}

void RamBlock::stop_dirty_log() {
    logging_ = false;
    for (std::uint64_t page = 0; page < size_ >> page_bits; ++page)
        notes_[page].fetch_and(std::uint8_t(~page_log_clean));
}

bool RamBlock::test_and_clear_dirty(std::uint64_t offset) {
    return !(notes(offset).fetch_or(page_log_clean, std::memory_order_acq_rel) & page_log_clean);
}

} // namespace vmm
