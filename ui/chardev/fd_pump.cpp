#include "ui/chardev/fd_pump.h"

#include "vmm/base/timer_queue.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace vmm::ui {

PumpEnd reopen_standard(int fd, bool for_writing) {
    struct stat info {};
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
        return {UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 3)), NoBlock::never}; // keeps the file's position and O_APPEND
    if (S_ISSOCK(info.st_mode)) return {UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 3)), NoBlock::per_call};
    if (S_ISFIFO(info.st_mode) || isatty(fd)) {
        std::string path = "/proc/self/fd/" + std::to_string(fd);
        int own = open(path.c_str(), (for_writing ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0) return {UniqueFd(own), NoBlock::own_flag};
    }
    return {UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 3)), NoBlock::poll};
}

FdPump::FdPump(EventLoop& loop, Events events) : loop_(loop), events_(std::move(events)) {}

FdPump::~FdPump() {
    *alive_ = false;
    detach();
}

void FdPump::attach(PumpEnd in, PumpEnd out) {
    detach();
    in_ = std::move(in);
    at_end_ = !in_.fd;
    {
        MutexLock lock(mutex_);
        out_ = std::move(out);
        queue_.clear();
        broken_ = false;
    }
    watch_input(true);
}

void FdPump::detach() {
    watch_input(false);
    in_ = {};
    held_.clear();
    at_end_ = true;
    MutexLock lock(mutex_);
    if (out_.fd) loop_.unwatch(out_.fd.get());
    out_ = {};
    queue_.clear();
}

void FdPump::post(void (FdPump::*what)()) {
    loop_.post([this, what, alive = alive_] {
        if (*alive) (this->*what)();
    });
}

void FdPump::watch_input(bool on) {
    on = on && in_.fd && !at_end_ && held_.empty() && !(events_.hold_input && events_.hold_input());
    if (on == watching_input_) return;
    watching_input_ = on;
    if (on)
        loop_.watch(in_.fd.get(), Ready::read, [this](Ready) { on_readable(); });
    else
        loop_.unwatch(in_.fd.get());
}

// True when nothing is held back any more.
bool FdPump::offer() {
    while (!held_.empty()) {
        std::size_t taken = events_.input ? events_.input(held_) : held_.size();
        if (taken == 0) return false;
        held_.erase(held_.begin(), held_.begin() + std::ptrdiff_t(std::min(taken, held_.size())));
    }
    return true;
}

void FdPump::on_readable() {
    if (events_.hold_input && events_.hold_input()) return watch_input(false);
    std::array<std::uint8_t, read_chunk> buffer;
    ssize_t n;
    if (in_.how == NoBlock::per_call)
        n = recv(in_.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    else
        n = read(in_.fd.get(), buffer.data(), buffer.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    // A terminal refuses (EIO) while another job has it; hold_input then keeps us from asking until SIGCONT.
    if (n < 0 && errno == EIO && events_.hold_input && events_.hold_input()) return watch_input(false);
    if (n <= 0) {
        at_end_ = true;
        watch_input(false);
        if (events_.end_of_input) events_.end_of_input();
        return;
    }
    held_.assign(buffer.begin(), buffer.begin() + n);
    offer();
    watch_input(true);
}

void FdPump::resume_input() {
    loop_.post([this, alive = alive_] {
        if (!*alive) return;
        offer();
        watch_input(true);
    });
}

std::ptrdiff_t FdPump::write_now(std::uint8_t const* data, std::size_t size) {
    std::size_t done = 0;
    while (done < size) {
        ssize_t n;
        if (out_.how == NoBlock::per_call) {
            n = send(out_.fd.get(), data + done, size - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        } else if (out_.how == NoBlock::poll) {
            pollfd room{out_.fd.get(), POLLOUT, 0};
            if (poll(&room, 1, 0) <= 0) break;
            constexpr std::size_t little = 64; // a terminal with room at all has at least about this much
            n = ::write(out_.fd.get(), data + done, std::min(size - done, little));
        } else {
            n = ::write(out_.fd.get(), data + done, size - done);
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) return -1;
        done += std::size_t(n);
    }
    return std::ptrdiff_t(done);
}

bool FdPump::flush_queue() {
    if (queue_.empty() || !out_.fd) return true;
    std::ptrdiff_t n = write_now(queue_.data(), queue_.size());
    if (n < 0) {
        broken_ = true;
        queue_.clear();
        post(&FdPump::handle_broken);
        return true;
    }
    queue_.erase(queue_.begin(), queue_.begin() + n);
    return queue_.empty();
}

std::size_t FdPump::write(std::span<std::uint8_t const> bytes) {
    MutexLock lock(mutex_);
    if (!out_.fd || broken_) return bytes.size();
    std::size_t taken = 0;
    if (queue_.empty()) {
        std::ptrdiff_t n = write_now(bytes.data(), bytes.size());
        if (n < 0) {
            broken_ = true;
            post(&FdPump::handle_broken);
            return bytes.size();
        }
        taken = std::size_t(n);
        if (taken == bytes.size()) return taken;
        post(&FdPump::on_write_ready); // watching is the loop thread's
    }
    std::size_t queued = std::min(bytes.size() - taken, queue_limit - std::min(queue_limit, queue_.size()));
    queue_.insert(queue_.end(), bytes.begin() + std::ptrdiff_t(taken), bytes.begin() + std::ptrdiff_t(taken + queued));
    taken += queued;
    if (taken < bytes.size()) starved_ = true;
    return taken;
}

bool FdPump::write_whole(std::span<std::uint8_t const> bytes) {
    MutexLock lock(mutex_);
    if (!out_.fd || broken_) return true;
    if (queue_.size() + bytes.size() > queue_limit) return !(starved_ = true);
    bool was_empty = queue_.empty();
    queue_.insert(queue_.end(), bytes.begin(), bytes.end());
    if (was_empty && !flush_queue()) post(&FdPump::on_write_ready);
    return true;
}

void FdPump::on_write_ready() {
    bool tell = false;
    {
        MutexLock lock(mutex_);
        if (!out_.fd) return;
        bool empty = flush_queue();
        if (empty)
            loop_.unwatch(out_.fd.get());
        else
            loop_.watch(out_.fd.get(), Ready::write, [this](Ready) { on_write_ready(); });
        if (starved_ && queue_.size() <= queue_limit / 2) starved_ = false, tell = true;
    }
    if (tell && events_.room) events_.room();
}

void FdPump::handle_broken() {
    {
        MutexLock lock(mutex_);
        if (out_.fd) loop_.unwatch(out_.fd.get());
        if (starved_) starved_ = false;
    }
    if (events_.broken) events_.broken();
    if (events_.room) events_.room();
}

void FdPump::drain(Nanoseconds timeout) {
    Nanoseconds end = host_monotonic() + timeout;
    for (;;) {
        int fd;
        {
            MutexLock lock(mutex_);
            if (flush_queue()) return;
            fd = out_.fd.get();
        }
        Nanoseconds left = end - host_monotonic();
        if (left <= 0) return;
        pollfd room{fd, POLLOUT, 0};
        poll(&room, 1, int(left / 1'000'000) + 1);
    }
}

} // namespace vmm::ui
