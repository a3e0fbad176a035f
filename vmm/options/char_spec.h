// The two ways to write a character backend: "tcp:host:port,server" (-serial and friends) and "socket,id=a,host=…"
// (-chardev).
#pragma once
#include "vmm/base/result.h"
#include "vmm/options/char_config.h"

#include <string_view>

namespace vmm {

// "stdio", "file:x", "mon:stdio", … `id` and `origin` are the caller's to set. Not for "none" and "chardev:ID". Errors
// without prefix: "'foo' is not a valid char driver".
Result<CharConfig> parse_char_spec(std::string_view spec);
// The argument of -chardev.
Result<CharConfig> parse_chardev(std::string_view argument);
// "-chardev help".
std::string_view chardev_help();

} // namespace vmm
