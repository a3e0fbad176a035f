#include "vmm/program/process.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace vmm {

Result<PidFile> PidFile::create(std::string path) {
    UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) return error_from_errno(errno, "-pidfile {}: Could not open the file", path);
    if (flock(fd.get(), LOCK_EX | LOCK_NB) < 0)
        return error("-pidfile {}: another running program holds this file", path);
    std::string text = std::to_string(getpid()) + "\n";
    if (ftruncate(fd.get(), 0) < 0 || pwrite(fd.get(), text.data(), text.size(), 0) != ssize_t(text.size()))
        return error_from_errno(errno, "-pidfile {}: Could not write the process id", path);
    return PidFile(std::move(path), std::move(fd));
}

PidFile::~PidFile() {
    if (fd_) unlink(path_.c_str());
}

Result<Daemon> Daemon::detach() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return error_from_errno(errno, "-daemonize: Could not make a pipe");
    UniqueFd from_child(ends[0]), to_parent(ends[1]);
    pid_t child = fork();
    if (child < 0) return error_from_errno(errno, "-daemonize: Could not fork");
    if (child == 0) {
        setsid();
        return Daemon(std::move(to_parent));
    }
    to_parent.reset();
    char ready;
    ssize_t n;
    do n = read(from_child.get(), &ready, 1);
    while (n < 0 && errno == EINTR);
    _exit(n == 1 ? 0 : 1);
}

void Daemon::ready() {
    if (UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC)); null)
        for (int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null.get(), stream);
    [[maybe_unused]] ssize_t n = write(to_parent_.get(), "r", 1);
    to_parent_.reset();
}

} // namespace vmm
