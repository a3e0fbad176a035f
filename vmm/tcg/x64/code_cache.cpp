#include "vmm/tcg/x64/code_cache.h"

#include "vmm/base/assert.h"

#include <sys/mman.h>

#include <cerrno>

namespace vmm::tcg::x64 {

namespace {
constexpr std::size_t host_page = 4096;

Error refused(char const* what) { return error_from_errno(errno, "cannot {} memory for translated code", what); }
} // namespace

Result<std::unique_ptr<CodeCache>> CodeCache::create(std::size_t bytes) {
    bytes = (bytes + host_page - 1) & ~(host_page - 1);
    // Shared anonymous memory rather than a memfd: `perf` reads /tmp/perf-PID.map for addresses in such mappings only.
    void* writable = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (writable == MAP_FAILED) return refused("get");
    void* executable = mremap(writable, 0, bytes, MREMAP_MAYMOVE); // of size 0: a second view of the same memory
    if (executable == MAP_FAILED || mprotect(executable, bytes, PROT_READ | PROT_EXEC) != 0) {
        Error error = refused("map executable");
        if (executable != MAP_FAILED) munmap(executable, bytes);
        munmap(writable, bytes);
        return error;
    }
    return std::unique_ptr<CodeCache>(
        new CodeCache(static_cast<std::uint8_t*>(writable), static_cast<std::uint8_t*>(executable), bytes));
}

CodeCache::~CodeCache() {
    munmap(writable_, size_);
    munmap(executable_, size_);
}

void CodeCache::commit(std::size_t bytes) {
    VMM_ASSERT(bytes <= room());
    used_ += bytes;
}

} // namespace vmm::tcg::x64
