#include "vmm/tcg/x64/code_cache.h"

#include "vmm/base/assert.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // Linux 6.1; absent from older headers
#endif

namespace vmm::tcg::x64 {

namespace {
constexpr std::size_t host_page = 4096, huge_page = 2 << 20;
// Little code needs none. Behind that, code is written before it is committed: so much is made ready ahead.
constexpr std::size_t little = 128 << 10, ahead = 256 << 10;

Error refused(char const* what) { return error_from_errno(errno, "cannot {} memory for translated code", what); }
} // namespace

Result<std::unique_ptr<CodeCache>> CodeCache::create(std::size_t bytes) {
    bytes = (bytes + host_page - 1) & ~(host_page - 1);
    // Room for both views where huge pages can be mapped. The views take its place.
    std::size_t const room = 2 * (bytes + huge_page);
    void* reserved = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return refused("get");
    auto aligned = [](std::uintptr_t at) { return (at + huge_page - 1) & ~(huge_page - 1); };
    std::uintptr_t const first = aligned(reinterpret_cast<std::uintptr_t>(reserved)), second = aligned(first + bytes);
    // Shared anonymous memory rather than a memfd: `perf` reads /tmp/perf-PID.map for addresses in such mappings only.
    void* writable = mmap(reinterpret_cast<void*>(first), bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    void* executable = MAP_FAILED;
    if (writable != MAP_FAILED) // of size 0: a second view of the same memory
        executable = mremap(writable, 0, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(second));
    if (executable == MAP_FAILED || mprotect(executable, bytes, PROT_READ | PROT_EXEC) != 0) {
        Error error = refused(writable == MAP_FAILED ? "get" : "map executable");
        munmap(reserved, room);
        return error;
    }
    return std::unique_ptr<CodeCache>(new CodeCache({reserved, room}, static_cast<std::uint8_t*>(writable),
                                                    static_cast<std::uint8_t*>(executable), bytes));
}

CodeCache::~CodeCache() { munmap(reserved_.at, reserved_.bytes); }

void CodeCache::commit(std::size_t bytes) {
    VMM_ASSERT(bytes <= room());
    used_ += bytes;
    while (used_ >= little && used_ + ahead > ready_ && size_ - ready_ >= huge_page) {
        // Shared memory gets no huge pages by itself, but asked for, once something is there. Where the host has none
        // left, or is too old to be asked, small ones come as they are touched.
        std::uint8_t* at = writable_ + ready_;
        *static_cast<std::uint8_t volatile*>(at) = *at;
        madvise(at, huge_page, MADV_COLLAPSE);
        ready_ += huge_page;
    }
}

} // namespace vmm::tcg::x64
