#include "vmm/tcg/x64/perf_map.h"

#include <fmt/core.h>
#include <unistd.h>

namespace vmm::tcg::x64 {

PerfMap::PerfMap() : file_(std::fopen(fmt::format("/tmp/perf-{}.map", getpid()).c_str(), "ae")) {}

PerfMap::~PerfMap() {
    if (file_) std::fclose(file_);
}

void PerfMap::add(std::uint8_t const* executable, std::size_t bytes, std::string const& name) {
    if (!file_) return;
    std::string line = fmt::format("{:x} {:x} {}\n", reinterpret_cast<std::uintptr_t>(executable), bytes, name);
    std::fwrite(line.data(), 1, line.size(), file_);
    std::fflush(file_);
}

} // namespace vmm::tcg::x64
