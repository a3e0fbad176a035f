#include "ui/chardev/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace vmm::ui {

namespace {

// What the signal handlers need. Written before it is published; after that only the atomics change.
struct Record {
    termios saved{};
    bool stdin_is_tty = false, stdout_is_tty = false;
    int stdin_flags = -1, stdout_flags = -1; // file status flags at the start, put back in case anything changed them
    int note_fd = -1;                        // write end of the pipe to the loop
    std::atomic<bool> raw{false};            // we changed the terminal and have not restored it
    TerminalModes modes;
};

// The one mutable static of the program: a signal handler has no argument through which it could be handed its state.
// Set while a Terminal exists. Lock-free, so handlers may read it.
std::atomic<Record*> current{nullptr};
static_assert(std::atomic<Record*>::is_always_lock_free);

// A terminal that is not our controlling one has no foreground job that we could disturb.
bool in_foreground() {
    pid_t group = tcgetpgrp(STDIN_FILENO);
    return group == getpgrp() || (group < 0 && errno == ENOTTY);
}

// Async-signal-safe. Restores termios and the modes the guest set, once.
void restore_terminal(Record& record) {
    if (record.stdout_is_tty) {
        std::array<char, TerminalModes::max_undo> buffer;
        std::string_view undo = record.modes.undo(buffer);
        // In the background (and stopped by the terminal) nothing of this is ours to change.
        if (!undo.empty() && tcgetpgrp(STDOUT_FILENO) == getpgrp()) {
            [[maybe_unused]] ssize_t n = write(STDOUT_FILENO, undo.data(), undo.size());
        }
    }
    if (record.stdin_flags >= 0) fcntl(STDIN_FILENO, F_SETFL, record.stdin_flags);
    if (record.stdout_flags >= 0) fcntl(STDOUT_FILENO, F_SETFL, record.stdout_flags);
    if (record.raw.exchange(false)) tcsetattr(STDIN_FILENO, TCSANOW, &record.saved);
}

// One message through the pipe to the loop; smaller than PIPE_BUF, so it is written whole.
struct Note {
    int signal;
    pid_t sender;
};

void note_handler(int signal, siginfo_t* info, void*) {
    int saved_errno = errno;
    if (Record* record = current.load()) {
        // A terminal that hung up is gone; everybody else gets it back when the loop ends.
        Note note{signal, info && info->si_code <= 0 ? info->si_pid : 0};
        [[maybe_unused]] ssize_t n = write(record->note_fd, &note, sizeof note);
    }
    errno = saved_errno;
}

void stop_handler(int, siginfo_t*, void*) {
    int saved_errno = errno;
    if (Record* record = current.load()) restore_terminal(*record);
    kill(getpid(), SIGSTOP); // the whole process stops here; SIGCONT's handler goes on
    errno = saved_errno;
}

void fatal_handler(int signal, siginfo_t*, void*) {
    if (Record* record = current.load()) restore_terminal(*record);
    // SA_RESETHAND has put the default action back: a fault recurs on return and then ends us; abort() and kill() do
    // not recur, so the signal is sent again (it is delivered on return from this handler).
    raise(signal);
}

constexpr int fatal_signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
// End a process that does not handle them: the keyboard's Ctrl-\, resource limits, timers, whoever types kill.
constexpr int killing_signals[] = {SIGQUIT, SIGTRAP, SIGSYS,  SIGALRM, SIGVTALRM, SIGPROF,  SIGXCPU,
                                   SIGXFSZ, SIGUSR1, SIGUSR2, SIGIO,   SIGPWR,    SIGSTKFLT};
constexpr int ending_signals[] = {SIGTERM, SIGINT, SIGHUP};
constexpr int ignored_signals[] = {SIGTTIN, SIGTTOU, SIGPIPE};

std::string process_name(pid_t pid) {
    std::string path = "/proc/" + std::to_string(pid) + "/comm";
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 64> name{};
    ssize_t n = fd ? read(fd.get(), name.data(), name.size() - 1) : 0;
    std::string text(name.data(), n > 0 ? std::size_t(n) : 0);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

} // namespace

struct Terminal::Impl {
    EventLoop& loop;
    Events events;
    Record record;
    UniqueFd note_in, note_out, parent;
    std::vector<std::pair<int, struct sigaction>> old_actions;
    bool wanted = false; // take() was called
    bool ending = false;
    TerminalSignals signals = TerminalSignals::act_on_us;
    std::function<void()> on_continued;

    Impl(EventLoop& l, Events e) : loop(l), events(std::move(e)) {}
    void install(int signal, void (*handler)(int, siginfo_t*, void*), int flags) {
        struct sigaction action {
        }, old{};
        action.sa_sigaction = handler;
        action.sa_flags = SA_SIGINFO | SA_RESTART | flags;
        sigemptyset(&action.sa_mask);
        sigaction(signal, &action, &old);
        // What we were told to ignore (nohup) stays ignored, and what an engine handles stays its own.
        bool ignored = old.sa_handler == SIG_IGN && (signal == SIGHUP || signal == SIGINT);
        if (ignored ||
            (old.sa_handler != SIG_DFL && std::ranges::find(killing_signals, signal) != std::end(killing_signals)))
            sigaction(signal, &old, nullptr);
        else
            old_actions.emplace_back(signal, old);
    }
    void ignore(int signal) {
        struct sigaction action {
        }, old{};
        action.sa_handler = SIG_IGN;
        sigaction(signal, &action, &old);
        old_actions.emplace_back(signal, old);
    }
    void make_raw();
    void on_note();
};

void Terminal::Impl::make_raw() {
    if (!wanted || !record.stdin_is_tty || record.raw.load() || !in_foreground()) return;
    termios now{};
    if (tcgetattr(STDIN_FILENO, &now) < 0) return;
    record.saved = now; // the shell may have changed it while we were stopped
    now.c_iflag &= ~tcflag_t(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    now.c_oflag |= OPOST;
    now.c_lflag &= ~tcflag_t(ECHO | ECHONL | ICANON | IEXTEN);
    now.c_cflag &= ~tcflag_t(CSIZE | PARENB);
    now.c_cflag |= CS8;
    now.c_cc[VMIN] = 1;
    now.c_cc[VTIME] = 0;
    if (signals == TerminalSignals::to_guest) now.c_lflag &= ~tcflag_t(ISIG);
    record.raw.store(true);
    tcsetattr(STDIN_FILENO, TCSANOW, &now);
}

void Terminal::Impl::on_note() {
    Note note;
    while (read(note_in.get(), &note, sizeof note) == ssize_t(sizeof note)) {
        if (note.signal == SIGCONT) {
            make_raw();
            if (on_continued) on_continued();
            continue;
        }
        std::string text = fmt::format("terminating on signal {}", note.signal);
        if (note.sender > 0) text += fmt::format(" from pid {} ({})", note.sender, process_name(note.sender));
        ending = true;
        if (events.on_terminate) events.on_terminate(text);
    }
}

Terminal::Terminal(EventLoop& loop, Events events) : impl_(std::make_unique<Impl>(loop, std::move(events))) {}

Result<std::unique_ptr<Terminal>> Terminal::create(EventLoop& loop, Events events) {
    std::unique_ptr<Terminal> terminal(new Terminal(loop, std::move(events)));
    Impl& impl = *terminal->impl_;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return error_from_errno(errno, "Could not create a pipe");
    impl.note_in = UniqueFd(ends[0]);
    impl.note_out = UniqueFd(ends[1]);
    Record& record = impl.record;
    record.note_fd = ends[1];
    record.stdin_is_tty = isatty(STDIN_FILENO);
    record.stdout_is_tty = isatty(STDOUT_FILENO);
    record.stdin_flags = fcntl(STDIN_FILENO, F_GETFL);
    record.stdout_flags = fcntl(STDOUT_FILENO, F_GETFL);
    Record* none = nullptr;
    bool first = current.compare_exchange_strong(none, &record);
    VMM_ASSERT(first);
    for (int signal : ignored_signals) impl.ignore(signal);
    for (int signal : ending_signals) impl.install(signal, note_handler, 0);
    for (int signal : fatal_signals) impl.install(signal, fatal_handler, SA_RESETHAND | SA_ONSTACK);
    for (int signal : killing_signals) impl.install(signal, fatal_handler, SA_RESETHAND | SA_ONSTACK);
    impl.install(SIGTSTP, stop_handler, 0);
    impl.install(SIGCONT, note_handler, 0);
    loop.watch(impl.note_in.get(), Ready::read, [&impl](Ready) { impl.on_note(); });
    return terminal;
}

Terminal::~Terminal() {
    restore();
    if (current.load() != &impl_->record) return; // create() failed early
    impl_->loop.unwatch(impl_->note_in.get());
    if (impl_->parent) impl_->loop.unwatch(impl_->parent.get());
    for (auto const& [signal, action] : impl_->old_actions) sigaction(signal, &action, nullptr);
    current.store(nullptr);
}

void Terminal::take(TerminalSignals signals) {
    Impl& impl = *impl_;
    impl.wanted = true;
    impl.signals = signals;
    impl.make_raw();
    if (!impl.record.stdin_is_tty || impl.parent) return;
    // Whoever started us (a script, sudo) may be killed while we hold the user's terminal: its shell then has the
    // terminal back without knowing that it is raw, so we leave as for a hang-up. Kernels without pidfds: no such care.
    impl.parent = UniqueFd(int(syscall(SYS_pidfd_open, getppid(), 0)));
    if (!impl.parent) return;
    fcntl(impl.parent.get(), F_SETFD, FD_CLOEXEC);
    impl.loop.watch(impl.parent.get(), Ready::read, [&impl](Ready) {
        impl.loop.unwatch(impl.parent.get());
        if (!impl.record.raw.load()) return;
        restore_terminal(impl.record);
        impl.wanted = false;
        impl.ending = true;
        if (impl.events.on_terminate) impl.events.on_terminate("terminating: the parent process is gone");
    });
}

bool Terminal::in_background() const { return impl_->record.stdin_is_tty && !in_foreground(); }

bool Terminal::ending() const { return impl_->ending; }

void Terminal::set_on_continued(std::function<void()> callback) { impl_->on_continued = std::move(callback); }

void Terminal::note_output(std::span<std::uint8_t const> bytes) { impl_->record.modes.feed(bytes); }

void Terminal::restore() {
    impl_->wanted = false;
    restore_terminal(impl_->record);
}

} // namespace vmm::ui
