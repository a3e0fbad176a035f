#include "vmm/tcg/x64/code_cache.h"

#include "vmm/base/assert.h"
#include "vmm/base/unique_fd.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace vmm::tcg::x64 {

namespace {
constexpr std::size_t host_page = 4096;

Error refused(char const* what) { return error_from_errno(errno, "cannot {} memory for translated code", what); }
} // namespace

Result<std::unique_ptr<CodeCache>> CodeCache::create(std::size_t bytes) {
    bytes = (bytes + host_page - 1) & ~(host_page - 1);
    UniqueFd fd(memfd_create("vmm-code", MFD_CLOEXEC));
    if (fd.get() < 0 || ftruncate(fd.get(), off_t(bytes)) != 0) return refused("get");
    void* writable = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (writable == MAP_FAILED) return refused("map");
    void* executable = mmap(nullptr, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd.get(), 0);
    if (executable == MAP_FAILED) {
        Error error = refused("map executable");
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
