// Daemon: `--fork`: the parent waits until the child serves, shows its messages, and exits.
#pragma once
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace vmm::block {

class Daemon {
public:
    // Forks; must come before any thread. In the parent this does not return: it exits with 0 when the child says
    // ready(), or 1 when it ends before, after passing on what it wrote to standard error.
    static Result<Daemon> fork();
    // In the child: detaches standard error, tells the parent.
    void ready();

private:
    explicit Daemon(UniqueFd pipe) : pipe_(std::move(pipe)) {}
    UniqueFd pipe_;
};

} // namespace vmm::block
