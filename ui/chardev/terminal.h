// Terminal: the user's terminal while we use it as a serial line, and giving it back on every way out.
#pragma once
#include "ui/chardev/terminal_modes.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/result.h"

#include <functional>
#include <memory>
#include <span>
#include <string>

namespace vmm::ui {

// What happens to Ctrl-C, Ctrl-Z and Ctrl-\ typed in the terminal.
enum class TerminalSignals : std::uint8_t {
    act_on_us, // as in any program ("-serial stdio")
    to_guest,  // they are characters ("-serial mon:stdio", -nographic)
};

// Owns the signal dispositions and the termios state of standard input. At most one exists at a time: signals belong to
// the process, so the record its signal handlers read is the program's one mutable static (terminal.cpp says why).
//
// Made by main() on the loop's thread before vCPU threads start, destroyed last. Loop thread unless said otherwise.
//  - SIGTERM, SIGINT, SIGHUP call `on_terminate(text)` on the loop, text being "terminating on signal 15 from pid N
//    (name)"; main logs it and stops the loop. The destructor then restores the terminal.
//  - SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE restore the terminal and then take their default action. An engine that
//    handles SIGSEGV itself installs its handler later and passes on what is not its own. So do SIGQUIT, SIGALRM,
//    SIGXCPU and the others whose default ends a process, unless they had a handler before.
//  - SIGTSTP restores, stops, and after SIGCONT takes the terminal again if we are in the foreground.
//  - In the background (`vmm … &`) the terminal is neither changed nor read, and neither SIGTTIN nor SIGTTOU stops us.
//  - When the parent dies while we hold the terminal, that counts as a hang-up.
class Terminal {
public:
    struct Events {
        std::function<void(std::string const& text)> on_terminate;
    };
    static Result<std::unique_ptr<Terminal>> create(EventLoop& loop, Events events);
    ~Terminal();
    Terminal(Terminal const&) = delete;
    Terminal& operator=(Terminal const&) = delete;

    // Starts using the terminal: standard input goes raw if it is a terminal and we are in the foreground (else after
    // the SIGCONT that brings us there).
    void take(TerminalSignals signals);
    // Whether reading standard input now would steal from, or be refused in favour of, the foreground job.
    bool in_background() const;
    // A signal has asked us to end (on_terminate was called).
    bool ending() const;
    // Called on the loop after SIGCONT: in_background() may have changed.
    void set_on_continued(std::function<void()> callback);
    // Notes what the guest writes to the terminal, so that the modes it set can be undone. Any thread, one at a time.
    void note_output(std::span<std::uint8_t const> bytes);
    // Restores now. Called by the destructor; idempotent.
    void restore();

private:
    explicit Terminal(EventLoop& loop, Events events);
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace vmm::ui
