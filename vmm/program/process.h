// Process-wide matters of a run: -daemonize, -pidfile, -name process=.
#pragma once
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

#include <string>

namespace vmm {

// The file of -pidfile, removed again at the end. Main thread.
class PidFile {
public:
    // Writes our process id; an error when the file cannot be written or another running process holds it.
    static Result<PidFile> create(std::string path);
    PidFile(PidFile&&) = default;
    PidFile& operator=(PidFile&&) = default;
    ~PidFile();

private:
    PidFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
    std::string path_;
    UniqueFd fd_; // holds the lock; none after a move
};

// -daemonize: the process that was started waits for the one that goes on.
class Daemon {
public:
    // Forks. In the child: returns an object whose ready() lets the parent end with status 0; should the child end
    // without it, the parent ends with status 1. The parent does not return. Before any thread exists.
    static Result<Daemon> detach();
    // The machine is set up: standard streams go to /dev/null, the parent ends.
    void ready();

private:
    explicit Daemon(UniqueFd to_parent) : to_parent_(std::move(to_parent)) {}
    UniqueFd to_parent_;
};

} // namespace vmm
