// Assertions for the third kind of wrong: ours. They stay on in release builds.
#pragma once

namespace vmm {
[[noreturn]] void assertion_failed(char const* expression, char const* file, int line);
}

// Ends the process (after restoring the terminal, see set_abort_hook) when `expression` is false: an invariant of ours
// is broken.
#define VMM_ASSERT(expression)                                                                                         \
    (__builtin_expect(!(expression), 0) ? ::vmm::assertion_failed(#expression, __FILE__, __LINE__) : (void)0)
#define VMM_UNREACHABLE() ::vmm::assertion_failed("unreachable", __FILE__, __LINE__)
