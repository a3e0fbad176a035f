#include "block/tools/common/interrupts.h"

#include <sys/signalfd.h>

#include <cerrno>

namespace vmm::block {

Interrupts::Interrupts(EventLoop& loop, std::function<void()> on_usr1) : loop_(loop) {
    sigset_t set;
    sigemptyset(&set);
    for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, &previous_);
    fd_ = UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd_) { // out of descriptors: the signals keep their usual effect
        pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
        return;
    }
    loop_.watch(fd_.get(), Ready::read, [this, on_usr1 = std::move(on_usr1)](Ready) {
        signalfd_siginfo info;
        while (read(fd_.get(), &info, sizeof(info)) == ssize_t(sizeof(info))) {
            if (info.ssi_signo == SIGUSR1)
                on_usr1();
            else
                pending_ = int(info.ssi_signo);
        }
    });
}

Interrupts::~Interrupts() {
    if (!fd_) return;
    loop_.unwatch(fd_.get());
    pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
}

Result<void> Interrupts::check() const {
    if (pending_) return Error("Interrupted", EINTR);
    return {};
}

void Interrupts::die_if_pending() {
    if (!pending_) return;
    pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
    ::signal(pending_, SIG_DFL);
    ::raise(pending_);
}

} // namespace vmm::block
