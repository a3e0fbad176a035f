#include "block/io/uring.h"

#include "vmm/base/event_loop.h"

#include <liburing.h>
#include <limits.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <deque>

namespace vmm::block {

namespace {

// One request in the ring. Lives in the awaiting frame.
struct Operation {
    std::coroutine_handle<> waiting;
    int result = 0;
};

class UringEngine final : public IoEngine {
public:
    explicit UringEngine(EventLoop& loop) : loop_(loop) {}
    ~UringEngine() override {
        if (!ready_) return;
        loop_.unwatch(ring_.ring_fd);
        io_uring_queue_exit(&ring_);
    }
    Result<void> start() {
        int rc = io_uring_queue_init(entries, &ring_, 0);
        if (rc < 0) return error_from_errno(-rc, "Could not set up io_uring");
        ready_ = true;
        loop_.watch(ring_.ring_fd, Ready::read, [this](Ready) { reap(); });
        return {};
    }
    std::unique_ptr<FileIo> open(int fd, bool page_cache) override;

    // Prepares a request with `fill(sqe)` and waits for its result: bytes or -errno. A request the kernel finishes at
    // once (page cache) does not suspend.
    template <class Fill> struct Awaiter {
        UringEngine& engine;
        Fill fill;
        Operation operation = {};
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> waiting) {
            io_uring_sqe* sqe = engine.in_flight_ < entries ? io_uring_get_sqe(&engine.ring_) : nullptr;
            operation.waiting = waiting;
            if (!sqe) { // the ring is full: resumed by reap() to try again
                operation.result = -EAGAIN;
                engine.blocked_.push_back(&operation);
                return true;
            }
            fill(sqe);
            io_uring_sqe_set_data(sqe, &operation);
            ++engine.in_flight_;
            int rc;
            do rc = io_uring_submit(&engine.ring_);
            while (rc == -EINTR || rc == -EAGAIN);
            VMM_ASSERT(rc >= 0);
            io_uring_cqe* cqe = nullptr;
            if (io_uring_peek_cqe(&engine.ring_, &cqe) == 0 && cqe && io_uring_cqe_get_data(cqe) == &operation) {
                operation.result = cqe->res;
                io_uring_cqe_seen(&engine.ring_, cqe);
                --engine.in_flight_;
                return false;
            }
            return true;
        }
        int await_resume() const noexcept { return operation.result; }
    };
    template <class Fill> Awaiter<Fill> request(Fill fill) { return Awaiter<Fill>{*this, fill}; }

private:
    void reap() {
        io_uring_cqe* cqe = nullptr;
        while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe) {
            auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(cqe));
            operation->result = cqe->res;
            io_uring_cqe_seen(&ring_, cqe);
            --in_flight_;
            operation->waiting.resume();
        }
        while (!blocked_.empty() && in_flight_ < entries) {
            Operation* next = blocked_.front();
            blocked_.pop_front();
            next->waiting.resume();
        }
    }
    static constexpr unsigned entries = 256;
    EventLoop& loop_;
    io_uring ring_{};
    bool ready_ = false;
    unsigned in_flight_ = 0;
    std::deque<Operation*> blocked_;
};

class UringFileIo final : public FileIo {
public:
    UringFileIo(UringEngine& engine, int fd, bool page_cache) : engine_(engine), fd_(fd), page_cache_(page_cache) {}

    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override { return transfer(false, offset, to.parts); }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from) override {
        return transfer(true, offset, from.parts);
    }
    Task<Result<void>> sync_data() override {
        auto fill = [this](io_uring_sqe* sqe) { io_uring_prep_fsync(sqe, fd_, IORING_FSYNC_DATASYNC); };
        int rc;
        do rc = co_await engine_.request(fill);
        while (rc == -EAGAIN || rc == -EINTR);
        co_return result_of(rc);
    }
    Task<Result<void>> allocate(int mode, std::uint64_t offset, std::uint64_t length) override {
        auto fill = [this, mode, offset, length](io_uring_sqe* sqe) {
            io_uring_prep_fallocate(sqe, fd_, mode, off_t(offset), off_t(length));
        };
        int rc;
        do rc = co_await engine_.request(fill);
        while (rc == -EAGAIN || rc == -EINTR);
        co_return result_of(rc);
    }

private:
    static Result<void> result_of(int rc) {
        if (rc >= 0) return {};
        return Error(std::strerror(-rc), -rc);
    }
    Task<Result<void>> transfer(bool writing, std::uint64_t offset, std::span<iovec const> parts);
    // Copying this much to or from the page cache takes longer than waking a kernel thread: the loop's thread has
    // better things to do meanwhile. Shorter requests (a table of the usual size is one) are copied by the submitting
    // call.
    static constexpr std::uint64_t worker_bytes = 131072;
    // Whole pages replace what the page cache holds and wait for no disk. Several file systems (ext4) make io_uring
    // hand even such writes to a kernel thread, one at a time: a hop that costs many times the copy.
    static constexpr std::uint64_t page_bytes = 4096;
    UringEngine& engine_;
    int fd_;
    bool page_cache_;
};

Task<Result<void>> UringFileIo::transfer(bool writing, std::uint64_t offset, std::span<iovec const> parts) {
    std::uint64_t const length = ConstIoSpans(parts).size_bytes();
    bool const on_worker = page_cache_ && length >= worker_bytes;
    bool copied_here = page_cache_ && writing && !on_worker && offset % page_bytes == 0 && length % page_bytes == 0;
    IoVector rest; // what is left after a short transfer, or one IOV_MAX-sized piece
    std::uint64_t done = 0;
    while (done < length) {
        std::span<iovec const> now = parts;
        if (done > 0) {
            rest = IoVector::slice(parts, done, length - done);
            now = rest.spans().parts;
        }
        unsigned count = unsigned(std::min<std::size_t>(now.size(), IOV_MAX));
        auto fill = [this, writing, now, count, on_worker, at = offset + done](io_uring_sqe* sqe) {
            if (writing)
                io_uring_prep_writev(sqe, fd_, now.data(), count, at);
            else
                io_uring_prep_readv(sqe, fd_, now.data(), count, at);
            if (on_worker) sqe->flags |= IOSQE_ASYNC;
        };
        int rc = 0;
        if (copied_here) {
            ssize_t const n = ::pwritev(fd_, now.data(), int(count), off_t(offset + done));
            rc = n < 0 ? -errno : int(n);
            copied_here = rc != -EAGAIN;
        } else {
            rc = co_await engine_.request(fill);
        }
        if (rc == -EAGAIN || rc == -EINTR) continue;
        if (rc < 0) co_return result_of(rc);
        if (rc == 0 && writing) co_return result_of(-ENOSPC);
        if (rc == 0) {
            zero_spans(IoSpans{parts}, done, length - done); // past the end of the file
            break;
        }
        done += unsigned(rc);
    }
    co_return Result<void>{};
}

std::unique_ptr<FileIo> UringEngine::open(int fd, bool page_cache) {
    return std::make_unique<UringFileIo>(*this, fd, page_cache);
}

} // namespace

Result<std::unique_ptr<IoEngine>> make_uring_engine(EventLoop& loop) {
    auto engine = std::make_unique<UringEngine>(loop);
    TRY(engine->start());
    return std::unique_ptr<IoEngine>(std::move(engine));
}

} // namespace vmm::block
