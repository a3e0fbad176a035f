#include "block/tools/common/progress.h"

#include "block/core/image_info.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace vmm::block {

namespace {
Nanoseconds monotonic_now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}
constexpr Nanoseconds quiet_time = nanoseconds_per_second, redraw_time = nanoseconds_per_second / 5;
} // namespace

Progress::Progress(Setup setup)
    : setup_(setup), on_terminal_(!setup.printed && !setup.quiet && isatty(STDERR_FILENO)), started_(monotonic_now()) {
    if (setup_.at_once) show();
}

Progress::~Progress() {
    if (setup_.printed) std::printf("\n");
    if (drawn_) std::fprintf(stderr, "\r\033[K");
}

void Progress::start(std::uint64_t total) {
    total_ = total;
    if (!setup_.at_once) show();
}

double Progress::percent() const { return total_ == 0 ? 0 : std::min(100.0, 100.0 * double(done_) / double(total_)); }

void Progress::set(std::uint64_t done) {
    done_ = done;
    show();
}

void Progress::finish() {
    total_ = std::max<std::uint64_t>(total_, 1);
    done_ = total_;
    last_shown_ = -100;
    show();
}

void Progress::show() {
    double now = percent();
    if (setup_.printed && (now - last_shown_ > setup_.step || (now >= 100 && last_shown_ < 100))) {
        last_shown_ = now;
        std::printf("    (%3.2f/100%%)\r", now);
        std::fflush(stdout);
    }
    if (on_terminal_) draw_terminal_line();
}

void Progress::draw_terminal_line() {
    Nanoseconds now = monotonic_now(), taken = now - started_;
    if (taken < quiet_time || now - last_drawn_ < redraw_time || done_ == 0) return;
    last_drawn_ = now;
    drawn_ = true;
    double seconds = double(taken) / double(nanoseconds_per_second), rate = double(done_) / seconds;
    auto left = std::uint64_t(double(total_ - std::min(done_, total_)) / rate);
    std::fprintf(stderr, "\r\033[K%5.1f %%  %s/s  %llu:%02llu left", percent(), human_size(std::uint64_t(rate)).c_str(),
                 static_cast<unsigned long long>(left / 60), static_cast<unsigned long long>(left % 60));
    std::fflush(stderr);
}

void Progress::print_now() const {
    std::fprintf(stderr, "    (%3.2f/100%%)\n", percent());
    std::fflush(stderr);
}

} // namespace vmm::block
