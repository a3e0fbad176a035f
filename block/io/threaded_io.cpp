#include "block/core/worker_pool.h"
#include "block/io/file_io.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace vmm::block {

namespace {

// Moves `parts` past the `count` bytes that were transferred.
void advance(std::vector<iovec>& parts, std::size_t& first, std::size_t count) {
    while (first < parts.size() && count >= parts[first].iov_len) count -= parts[first++].iov_len;
    if (first < parts.size()) {
        parts[first].iov_base = static_cast<char*>(parts[first].iov_base) + count;
        parts[first].iov_len -= count;
    }
}

// The whole transfer with continuation of short ones; an errno or 0.
int transfer(int fd, bool writing, std::uint64_t offset, std::vector<iovec> parts) {
    std::size_t first = 0;
    advance(parts, first, 0);
    while (first < parts.size()) {
        int count = int(std::min<std::size_t>(parts.size() - first, IOV_MAX));
        ssize_t n = writing ? pwritev(fd, &parts[first], count, off_t(offset))
                            : preadv(fd, &parts[first], count, off_t(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        if (n == 0 && writing) return ENOSPC;
        if (n == 0) { // past the end of the file
            for (; first < parts.size(); ++first) std::memset(parts[first].iov_base, 0, parts[first].iov_len);
            return 0;
        }
        offset += std::uint64_t(n);
        advance(parts, first, std::size_t(n));
    }
    return 0;
}

Result<void> from_errno(int code) {
    if (code == 0) return {};
    return Error(std::strerror(code), code);
}

class ThreadedFileIo final : public FileIo {
public:
    ThreadedFileIo(WorkerPool& pool, int fd) : pool_(pool), fd_(fd) {}

    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override {
        auto work = [this, offset, to] {
            return transfer(fd_, false, offset, std::vector<iovec>(to.parts.begin(), to.parts.end()));
        };
        int code = co_await on_pool(pool_, work);
        co_return from_errno(code);
    }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from) override {
        auto work = [this, offset, from] {
            return transfer(fd_, true, offset, std::vector<iovec>(from.parts.begin(), from.parts.end()));
        };
        int code = co_await on_pool(pool_, work);
        co_return from_errno(code);
    }
    Task<Result<void>> sync_data() override {
        auto work = [this] { return fdatasync(fd_) < 0 ? errno : 0; };
        int code = co_await on_pool(pool_, work);
        co_return from_errno(code);
    }
    Task<Result<void>> allocate(int mode, std::uint64_t offset, std::uint64_t length) override {
        auto work = [this, mode, offset, length] {
            int rc;
            do rc = fallocate(fd_, mode, off_t(offset), off_t(length));
            while (rc < 0 && errno == EINTR);
            return rc < 0 ? errno : 0;
        };
        int code = co_await on_pool(pool_, work);
        co_return from_errno(code);
    }

private:
    WorkerPool& pool_;
    int fd_;
};

} // namespace

std::unique_ptr<FileIo> make_threaded_file_io(WorkerPool& pool, int fd) {
    return std::make_unique<ThreadedFileIo>(pool, fd);
}

} // namespace vmm::block
