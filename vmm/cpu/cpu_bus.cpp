#include "vmm/cpu/cpu_bus.h"

#include <sys/random.h>

namespace vmm {

void CpuBus::set_smm(bool) {} // a machine without SMRAM

// getrandom() cannot fail for so few bytes once the host has booted.
std::uint64_t CpuBus::random(unsigned size) {
    std::uint64_t value = 0;
    [[maybe_unused]] ssize_t got = getrandom(&value, size, 0);
    return value;
}

} // namespace vmm
