#include "vmm/base/log.h"

#include <ctime>

namespace vmm {

Log::Log(std::string program, std::FILE* out) : program_(std::move(program)), out_(out) {}

Log::~Log() {
    if (trace_file_) std::fclose(trace_file_);
}

void Log::message(std::string_view kind, std::string_view text) {
    std::lock_guard lock(mutex_);
    std::fprintf(out_, "%s: %.*s%.*s\n", program_.c_str(), int(kind.size()), kind.data(), int(text.size()),
                 text.data());
    std::fflush(out_);
}

bool Log::set_trace_file(std::string const& path) {
    std::FILE* file = std::fopen(path.c_str(), "we");
    if (!file) return false;
    std::lock_guard lock(mutex_);
    if (trace_file_) std::fclose(trace_file_);
    trace_file_ = file;
    return true;
}

void Log::trace(Trace which, std::string_view text) {
    if (!enabled(which)) return;
    std::lock_guard lock(mutex_);
    if (which == Trace::guest_errors || which == Trace::unimp) {
        std::int64_t now = std::time(nullptr);
        if (now != window_) window_ = now, in_window_ = 0;
        if (++in_window_ > rate_limit) return;
    }
    std::FILE* to = trace_file_ ? trace_file_ : out_;
    std::fwrite(text.data(), 1, text.size(), to);
    if (to == out_) std::fflush(to);
}

} // namespace vmm
