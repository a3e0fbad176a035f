#include "vmm/base/error.h"

#include "vmm/base/assert.h"
#include "vmm/base/log.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace vmm {

Error Error::with_prefix(std::string_view prefix) const {
    return Error(fmt::format("{}: {}", prefix, message_), errno_value_);
}

Error errno_error(int errno_value, std::string what) {
    return Error(fmt::format("{}: {}", what, std::strerror(errno_value)), errno_value);
}

void assertion_failed(char const* expression, char const* file, int line) {
    std::fprintf(stderr, "%s:%d: internal error: %s does not hold; this is a bug in vmm\n", file, line, expression);
    std::abort();
}

} // namespace vmm
