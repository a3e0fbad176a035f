#include "ui/chardev/pty_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace vmm::ui {

PtyStream::PtyStream(EventLoop& loop)
    : loop_(loop), pump_(loop, {.input = [this](auto bytes) { return frontend_ ? frontend_->receive(bytes) : 0; },
                                .room =
                                    [this] {
                                        if (frontend_) frontend_->writable();
                                    },
                                .end_of_input = [this] { disconnect(); },
                                .broken = [this] { disconnect(); },
                                .hold_input = {}}) {}

PtyStream::~PtyStream() {
    *alive_ = false;
    if (timer_) loop_.unwatch(timer_.get());
}

Result<std::unique_ptr<PtyStream>> PtyStream::create(EventLoop& loop) {
    std::unique_ptr<PtyStream> pty(new PtyStream(loop));
    pty->master_ = UniqueFd(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    char name[64];
    int master = pty->master_.get();
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof name) != 0)
        return error_from_errno(errno, "Could not create a pseudo-terminal");
    pty->name_ = name;
    {
        // Opened and closed once: from then on the kernel reports "nobody there" as a hang-up.
        UniqueFd other(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
        termios settings{};
        if (other && tcgetattr(other.get(), &settings) == 0) {
            cfmakeraw(&settings);
            tcsetattr(other.get(), TCSAFLUSH, &settings);
        }
    }
    pty->timer_ = UniqueFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!pty->timer_) return error_from_errno(errno, "Could not create a timer");
    loop.watch(pty->timer_.get(), Ready::read, [raw = pty.get()](Ready) {
        std::uint64_t ticks;
        [[maybe_unused]] ssize_t n = read(raw->timer_.get(), &ticks, sizeof ticks);
        if (raw->someone_there()) raw->connect();
    });
    pty->disconnect();
    return pty;
}

bool PtyStream::someone_there() const {
    pollfd state{master_.get(), POLLIN, 0};
    return poll(&state, 1, 0) >= 0 && !(state.revents & POLLHUP);
}

void PtyStream::connect() {
    if (connected_) return;
    itimerspec off{};
    timerfd_settime(timer_.get(), 0, &off, nullptr);
    pump_.attach({UniqueFd(fcntl(master_.get(), F_DUPFD_CLOEXEC, 3)), NoBlock::own_flag},
                 {UniqueFd(fcntl(master_.get(), F_DUPFD_CLOEXEC, 3)), NoBlock::own_flag});
    connected_ = true;
    if (frontend_) frontend_->event(CharEvent::opened);
    if (frontend_) frontend_->writable();
}

void PtyStream::disconnect() {
    bool was = connected_.exchange(false);
    pump_.detach();
    itimerspec often{.it_interval = {.tv_sec = 0, .tv_nsec = 100'000'000}, .it_value = {.tv_sec = 0, .tv_nsec = 1}};
    timerfd_settime(timer_.get(), 0, &often, nullptr);
    if (was && frontend_) frontend_->event(CharEvent::closed);
    if (was && frontend_) frontend_->writable();
}

std::size_t PtyStream::write(std::span<std::uint8_t const> bytes) {
    if (!connected_) {
        if (!someone_there()) return bytes.size();
        // Somebody has just opened it and the loop has not seen it yet. What does not fit now is asked for again when
        // connect() says that there is room.
        ssize_t n = ::write(master_.get(), bytes.data(), bytes.size());
        return n < 0 ? 0 : std::size_t(n);
    }
    return pump_.write(bytes);
}

void PtyStream::set_frontend(CharFrontend* frontend) {
    frontend_ = frontend;
    if (!frontend) return;
    loop_.post([this, alive = alive_] {
        if (*alive && frontend_ && connected_) frontend_->event(CharEvent::opened);
    });
    pump_.resume_input();
}

} // namespace vmm::ui
