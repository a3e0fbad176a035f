#include "block/tools/nbd/daemon.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace vmm::block {

namespace {

[[noreturn]] void wait_for_child(int pipe) {
    bool ready = false;
    char buffer[4096];
    for (;;) {
        ssize_t got = ::read(pipe, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        char* end = std::remove(buffer, buffer + got, '\0'); // the child's "ready" is a NUL in its messages
        ready = ready || end != buffer + got;
        [[maybe_unused]] ssize_t written = ::write(STDERR_FILENO, buffer, std::size_t(end - buffer));
    }
    _exit(ready ? 0 : 1);
}

} // namespace

Result<Daemon> Daemon::fork() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) return error_from_errno(errno, "Error setting up communication pipe");
    UniqueFd from_child(ends[0]), to_parent(ends[1]);
    pid_t child = ::fork();
    if (child < 0) return error_from_errno(errno, "Failed to fork");
    if (child > 0) {
        to_parent.reset();
        wait_for_child(from_child.get());
    }
    ::setsid();
    ::dup2(to_parent.get(), STDERR_FILENO);
    return Daemon(std::move(to_parent));
}

void Daemon::ready() {
    UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null.get(), stream);
    [[maybe_unused]] ssize_t written = ::write(pipe_.get(), "", 1);
    pipe_.reset();
}

} // namespace vmm::block
