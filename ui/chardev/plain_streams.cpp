#include "ui/chardev/plain_streams.h"

#include "ui/chardev/terminal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace vmm::ui {

PumpStream::PumpStream(EventLoop& loop, PumpEnd in, PumpEnd out, Hooks hooks)
    : loop_(loop), hooks_(std::move(hooks)),
      pump_(loop, {.input = [this](auto bytes) { return told_ ? frontend_->receive(bytes) : 0; },
                   .room =
                       [this] {
                           if (frontend_) frontend_->writable();
                       },
                   .end_of_input = {}, // the machine goes on without input
                   .broken = {},
                   .hold_input = hooks_.hold_input}) {
    pump_.attach(std::move(in), std::move(out));
}

PumpStream::~PumpStream() { *alive_ = false; }

std::size_t PumpStream::write(std::span<std::uint8_t const> bytes) {
    std::size_t taken = pump_.write(bytes);
    if (hooks_.on_output) hooks_.on_output(bytes.first(taken));
    return taken;
}

void PumpStream::set_frontend(CharFrontend* frontend) {
    frontend_ = frontend;
    told_ = false;
    if (!frontend) return;
    loop_.post([this, alive = alive_] {
        if (!*alive || !frontend_) return;
        told_ = true;
        frontend_->event(CharEvent::opened);
        pump_.resume_input();
    });
}

void PumpStream::drain() { pump_.drain(nanoseconds_per_second / 2); }

Result<std::unique_ptr<CharStream>> open_file(EventLoop& loop, CharConfig const& config) {
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | (config.append ? O_APPEND : O_TRUNC);
    UniqueFd fd(open(config.path.c_str(), flags, 0666));
    if (!fd) return error_from_errno(errno, "Could not open '{}'", config.path);
    struct stat info {};
    fstat(fd.get(), &info);
    PumpEnd out{std::move(fd), S_ISREG(info.st_mode) ? NoBlock::never : NoBlock::own_flag};
    return std::unique_ptr<CharStream>(std::make_unique<PumpStream>(loop, PumpEnd{}, std::move(out)));
}

Result<std::unique_ptr<CharStream>> open_pipe(EventLoop& loop, CharConfig const& config) {
    // Read-write, so that opening does not wait for the other side and its leaving is not an end.
    constexpr int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK;
    UniqueFd in(open((config.path + ".in").c_str(), flags)), out(open((config.path + ".out").c_str(), flags));
    if (!in || !out) {
        in = UniqueFd(open(config.path.c_str(), flags));
        if (!in) return error_from_errno(errno, "Could not open '{}'", config.path);
        out = UniqueFd(fcntl(in.get(), F_DUPFD_CLOEXEC, 3));
        if (!out) return error_from_errno(errno, "Could not open '{}'", config.path);
    }
    return std::unique_ptr<CharStream>(std::make_unique<PumpStream>(loop, PumpEnd{std::move(in), NoBlock::own_flag},
                                                                    PumpEnd{std::move(out), NoBlock::own_flag}));
}

std::unique_ptr<CharStream> open_stdio(EventLoop& loop, Terminal& terminal, CharConfig const& config) {
    terminal.take(config.signal ? TerminalSignals::act_on_us : TerminalSignals::to_guest);
    PumpStream::Hooks hooks;
    if (isatty(STDOUT_FILENO)) hooks.on_output = [&terminal](auto bytes) { terminal.note_output(bytes); };
    if (isatty(STDIN_FILENO)) hooks.hold_input = [&terminal] { return terminal.in_background(); };
    auto stream = std::make_unique<PumpStream>(loop, reopen_standard(STDIN_FILENO, false),
                                               reopen_standard(STDOUT_FILENO, true), std::move(hooks));
    // `stream` is destroyed before the terminal (CharBackends), and SIGCONT is only looked at from the loop.
    terminal.set_on_continued([raw = stream.get()] { raw->accept_input(); });
    return stream;
}

} // namespace vmm::ui
