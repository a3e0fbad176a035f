// Runs the cases of a program one after the other and counts.
#include "runtime/guest.h"
#include "runtime/traps.h"

extern "C" Case const guest_cases_begin[], guest_cases_end[];

namespace {
struct {
    unsigned failures;
    char const* skipped;
} now;
constexpr unsigned shown_per_case = 12;
} // namespace

void check_true(bool ok, char const* file, int line, char const* what) {
    if (!ok && ++now.failures <= shown_per_case) print("  %s:%d: not so: %s\n", file, line, what);
}

void check_equal(unsigned long long seen, unsigned long long wanted, char const* file, int line, char const* what) {
    if (seen != wanted && ++now.failures <= shown_per_case)
        print("  %s:%d: %s is 0x%llx, wanted 0x%llx\n", file, line, what, seen, wanted);
}

void note_skip(char const* reason) { now.skipped = reason; }

static bool equal(char const* a, char const* b) {
    while (*a && *a == *b) ++a, ++b;
    return !*a && (!*b || *b == ' ');
}

// The text after "only=" on the command line: runs that case alone.
static char const* only() {
    for (char const* at = command_line(); *at; ++at)
        if (!memcmp(at, "only=", 5)) return at + 5;
    return nullptr;
}

extern "C" void guest_main() {
    outb(0x21, 0xff); // a firmware's timer interrupt would come at an exception's vector
    outb(0xa1, 0xff);
    reload_tables();
    unsigned passed = 0, failed = 0, skipped = 0;
    char const* chosen = only();
    for (Case const* c = guest_cases_begin; c != guest_cases_end; ++c) {
        if (chosen && !equal(c->name, chosen)) continue;
        now = {};
        Fault fault = attempt([c] { c->run(); });
        if (fault.vector != NONE) {
            ++now.failures;
            print("  unexpected vector %u error 0x%lx at 0x%lx cr2 0x%lx flags 0x%lx\n", fault.vector, fault.error,
                  fault.ip, fault.cr2, fault.flags);
            reload_tables();
        }
        if (now.failures) {
            ++failed;
            print("FAIL %s\n", c->name);
        } else if (now.skipped) {
            ++skipped;
            print("skip %s: %s\n", c->name, now.skipped);
        } else {
            ++passed;
            print("ok %s\n", c->name);
        }
    }
    print("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    leave(failed ? 1 : 0);
}
