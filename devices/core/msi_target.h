// MsiTarget: where a device's message-signalled interrupts go.
#pragma once
#include <cstdint>

namespace vmm::dev {

// Takes the memory write a PCI function or HPET makes to signal an interrupt (PCI 3.0 section 6.8, Intel SDM vol. 3
// section 10.11). Device lock held. An address outside the message window is a guest error and has no effect.
class MsiTarget {
public:
    virtual ~MsiTarget() = default;
    virtual void deliver_msi(std::uint64_t address, std::uint32_t data) = 0;
};

} // namespace vmm::dev
