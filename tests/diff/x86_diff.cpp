// x86_diff: random sequences on the host CPU and on our engines; prints what differs.
//
// usage: x86_diff [--engine interp|jit] [--count N] [--seed FIRST] [--families MASK] [--show]
#include "tests/diff/generator.h"
#include "tests/diff/guest_runner.h"
#include "tests/diff/native_runner.h"

#include <fmt/core.h>

#include <cstdlib>
#include <cstring>
#include <string>

using namespace vmm;
using namespace vmm::diff;

int main(int argc, char** argv) {
    std::string engine = "interp";
    std::uint64_t count = 1000, first = 1;
    unsigned families = everything, limit = 10;
    bool show = false;
    for (int i = 1; i < argc; ++i) {
        auto value = [&] { return ++i < argc ? argv[i] : "0"; };
        if (!std::strcmp(argv[i], "--engine"))
            engine = value();
        else if (!std::strcmp(argv[i], "--count"))
            count = std::strtoull(value(), nullptr, 0);
        else if (!std::strcmp(argv[i], "--seed"))
            first = std::strtoull(value(), nullptr, 0);
        else if (!std::strcmp(argv[i], "--families"))
            families = unsigned(std::strtoul(value(), nullptr, 0));
        else if (!std::strcmp(argv[i], "--show"))
            show = true;
        else
            return fmt::print(stderr, "x86_diff: unknown option {}\n", argv[i]), 2;
    }
    NativeRunner native;
    GuestRunner guest(tcg::make_interpreter);
    std::uint64_t ran = 0, killed = 0, different = 0, instructions = 0;
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
        Sequence q = generate(seed, families);
        if (show) fmt::print("{}", describe(q));
        Outcome expected, actual;
        if (!native.run(q, expected)) {
            ++killed;
            continue;
        }
        guest.run(q, actual);
        ++ran, instructions += q.instructions.size();
        std::string difference = compare(q, expected, actual);
        if (difference.empty()) continue;
        if (++different <= limit)
            fmt::print("--- difference, reproduce with --engine {} --seed {} --count 1 --families {}\n{}{}", engine,
                       seed, families, describe(q), difference);
    }
    fmt::print("{} sequences, {} instructions, {} different, {} not comparable\n", ran, instructions, different,
               killed);
    return different || ran == 0;
}
