// Runs the cases of a program one after the other and counts.
#include "runtime/guest.h"
#include "runtime/traps.h"

extern "C" Case const guest_cases_begin[], guest_cases_end[];

namespace {
struct {
    unsigned failures;
    char const* skipped;
    uint8_t cannot_emulate; // opcode, 0: none
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
void note_cannot_emulate(uint8_t opcode) { now.cannot_emulate = opcode; }

// Whether `list` ("a,b,c", ended by a space) has `name`.
static bool listed(char const* name, char const* list) {
    for (;; ++list) {
        char const* n = name;
        while (*n && *n == *list) ++n, ++list;
        if (!*n && (!*list || *list == ' ' || *list == ',')) return true;
        while (*list && *list != ' ' && *list != ',') ++list;
        if (*list != ',') return false;
    }
}

// The text after `option` on the command line: "only=a,b" runs those cases alone, "without=a,b" all but those.
static char const* list_of(char const* option, size_t length) {
    for (char const* at = command_line(); *at; ++at)
        if (!memcmp(at, option, length)) return at + length;
    return nullptr;
}

extern "C" void guest_main() {
    outb(0x21, 0xff); // a firmware's timer interrupt would come at an exception's vector
    outb(0xa1, 0xff);
    reload_tables();
    unsigned passed = 0, failed = 0, skipped = 0;
    char const *chosen = list_of("only=", 5), *left_out = list_of("without=", 8);
    for (Case const* c = guest_cases_begin; c != guest_cases_end; ++c) {
        if (chosen && !listed(c->name, chosen)) continue;
        if (left_out && listed(c->name, left_out)) continue;
        now = {};
        print("case %s\n", c->name);
        Fault fault = attempt([c] { c->run(); });
        if (fault.vector != NONE) {
            ++now.failures;
            print("  unexpected vector %u error 0x%lx at 0x%lx cr2 0x%lx flags 0x%lx\n", fault.vector, fault.error,
                  fault.ip, fault.cr2, fault.flags);
            reload_tables();
        }
        if (now.cannot_emulate) {
            ++skipped;
            print("skip %s: this CPU cannot emulate opcode %x in ring 3\n", c->name, now.cannot_emulate);
        } else if (now.failures) {
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
