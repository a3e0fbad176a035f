// Error: what the world did to us, in words a user can act on.
#pragma once
#include <fmt/core.h>

#include <string>
#include <utility>

namespace vmm {

// A failure of the outside world or of the user's input. `message` says what failed, on which option or file, why, and
// what to do, in one line where it can ("Could not open 'x.img': No such file or directory"). Copyable, any thread.
class Error {
public:
    explicit Error(std::string message, int errno_value = 0)
        : message_(std::move(message)), errno_value_(errno_value) {}

    std::string const& message() const { return message_; }
    // The errno the failure came from, or 0. Callers that must tell ENOENT from EACCES look here, never at the text.
    int errno_value() const { return errno_value_; }

    // The same error with `prefix: ` in front of its message.
    Error with_prefix(std::string_view prefix) const;

private:
    std::string message_;
    int errno_value_;
};

template <class... Args> [[nodiscard]] Error error(fmt::format_string<Args...> format, Args&&... args) {
    return Error(fmt::format(format, std::forward<Args>(args)...));
}

// `error(...)` plus ": strerror(errno_value)".
Error errno_error(int errno_value, std::string what);
template <class... Args>
[[nodiscard]] Error error_from_errno(int errno_value, fmt::format_string<Args...> format, Args&&... args) {
    return errno_error(errno_value, fmt::format(format, std::forward<Args>(args)...));
}

} // namespace vmm
