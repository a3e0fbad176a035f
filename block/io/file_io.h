// FileIo: asynchronous requests on one file descriptor, by io_uring or by worker threads.
#pragma once
#include "block/core/io_spans.h"
#include "block/core/task.h"

#include <cstdint>
#include <memory>

namespace vmm::block {

class WorkerPool;
class IoEngine;

// Requests on a descriptor that stays the caller's. Loop thread only. Short transfers are continued; a read past the
// end of the file is filled with zeroes. Errors carry the errno and no words: the caller names the file.
class FileIo {
public:
    virtual ~FileIo() = default;
    virtual Task<Result<void>> read(std::uint64_t offset, IoSpans to) = 0;
    virtual Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from) = 0;
    virtual Task<Result<void>> sync_data() = 0;
    // fallocate(2) with `mode` (punch hole, zero range, or 0: preallocate).
    virtual Task<Result<void>> allocate(int mode, std::uint64_t offset, std::uint64_t length) = 0;
};

// An io_uring shared by all files of a loop. Null result of create(): the kernel has none or forbids it.
class IoEngine {
public:
    virtual ~IoEngine() = default;
    // `page_cache`: the descriptor was opened without O_DIRECT, so that large requests are copies rather than waits.
    virtual std::unique_ptr<FileIo> open(int fd, bool page_cache) = 0;
};

std::unique_ptr<FileIo> make_threaded_file_io(WorkerPool& pool, int fd);

} // namespace vmm::block
