// ApicMessage: one interrupt message between I/O APIC, MSI, local APICs (Intel SDM vol. 3 chapter 10).
#pragma once
#include <cstdint>

namespace vmm::dev {

// The delivery modes of ICR, LVT and redirection entries (SDM figures 10-8, 10-12).
enum class DeliveryMode : std::uint8_t {
    fixed = 0,
    lowest_priority = 1,
    smi = 2,
    nmi = 4,
    init = 5,
    startup = 6,
    ext_int = 7,
};

struct ApicMessage {
    std::uint8_t vector = 0;
    DeliveryMode mode = DeliveryMode::fixed;
    bool level_triggered = false;
    bool logical = false;          // destination mode
    bool wide_destination = false; // 32-bit destination of an x2APIC ICR; otherwise 8 bits with 0xff = everyone
    std::uint32_t destination = 0;
};

} // namespace vmm::dev
