// Progress: how far a long command is: QEMU's `-p` line, a rate and time left on a terminal, an answer to SIGUSR1.
#pragma once
#include "vmm/base/clock.h"

#include <cstdint>

namespace vmm::block {

// With `-p`: "    (12.34/100%)\r" on standard output whenever at least `step` percent were added. Else, if standard
// error is a terminal and not `quiet`: one line redrawn there once the work has taken a second.
class Progress {
public:
    struct Setup {
        bool printed = false; // -p
        bool quiet = false;   // -q
        double step = 1.0;    // percent between two -p lines
        bool at_once = true;  // the first line now; false: with start()
    };
    explicit Progress(Setup setup);
    // Ends the line.
    ~Progress();
    Progress(Progress const&) = delete;
    Progress& operator=(Progress const&) = delete;

    // Sets how much there is to do (bytes, or any unit for rateless work).
    void start(std::uint64_t total);
    void advance(std::uint64_t amount) { set(done_ + amount); }
    void set(std::uint64_t done);
    // 100 %, always printed.
    void finish();
    // "    (12.34/100%)\n" on standard error (SIGUSR1).
    void print_now() const;

private:
    double percent() const;
    void show();
    void draw_terminal_line();

    Setup setup_;
    bool on_terminal_;
    bool drawn_ = false;
    std::uint64_t total_ = 0, done_ = 0;
    double last_shown_ = -100;
    Nanoseconds started_, last_drawn_ = 0;
};

} // namespace vmm::block
