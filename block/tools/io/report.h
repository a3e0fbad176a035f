// The result lines of vmm-io.
#pragma once
#include "block/core/io_spans.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace vmm::block {

using IoClock = std::chrono::steady_clock;

// "4 KiB", "1.500 MiB", "512 bytes".
std::string io_size(double bytes);

// What one command moved.
struct IoResult {
    std::string_view verb; // "read", "wrote", "discard"
    std::uint64_t offset = 0;
    std::uint64_t asked = 0, done = 0;
    unsigned operations = 1;
    double seconds = 0;
};
// "wrote 65536/65536 bytes at offset 0" and the rates; with `machine_readable` (-C) the comma list.
void print_result(IoResult const& result, bool machine_readable);

// "00000000:  cd cd ...  ...." lines of `bytes`, counted from `offset`.
void print_dump(ConstBytes bytes, std::uint64_t offset);

inline double seconds_since(IoClock::time_point start) {
    return std::chrono::duration<double>(IoClock::now() - start).count();
}

} // namespace vmm::block
