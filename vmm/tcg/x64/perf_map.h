// PerfMap: names of generated code for `perf` (/tmp/perf-PID.map; linux/tools/perf/Documentation/jit-interface.txt).
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>

namespace vmm::tcg::x64 {

// Several may write the file at once: each line is one appending write. A file that cannot be opened is done without.
class PerfMap {
public:
    PerfMap();
    ~PerfMap();
    PerfMap(PerfMap const&) = delete;
    PerfMap& operator=(PerfMap const&) = delete;

    void add(std::uint8_t const* executable, std::size_t bytes, std::string const& name);

private:
    std::FILE* file_;
};

} // namespace vmm::tcg::x64
