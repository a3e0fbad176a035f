#include "devices/irq/apic_bus.h"

#include "devices/irq/io_apic.h"
#include "devices/irq/local_apic.h"

namespace vmm::dev {

bool ApicBus::deliver(ApicMessage const& message) {
    if (remote_) {
        std::uint64_t address = msi_base | std::uint64_t(message.destination & 0xff) << 12 | message.logical << 2;
        constexpr std::uint32_t asserted = 1u << 14, level = 1u << 15;
        remote_->send(address, message.vector | std::uint32_t(message.mode) << 8 |
                                   (message.level_triggered ? asserted | level : 0));
        return true;
    }
    LocalApic* lowest = nullptr;
    bool found = false;
    for (LocalApic* apic : local_) {
        if (!apic->is_destination(message)) continue;
        found = true;
        if (message.mode != DeliveryMode::lowest_priority)
            apic->receive(message);
        else if (apic->accepts_vectors() && (!lowest || apic->ppr() < lowest->ppr()))
            lowest = apic; // ties go to the first CPU: deterministic, and as good as the hardware's undefined choice
    }
    if (lowest) lowest->receive(message);
    return found;
}

void ApicBus::deliver_to_all(ApicMessage const& message, LocalApic const* except) {
    for (LocalApic* apic : local_)
        if (apic != except) apic->receive(message);
}

void ApicBus::deliver_msi(std::uint64_t address, std::uint32_t data) {
    if (address < msi_base || address - msi_base >= msi_size) {
        log_.guest_error("apic: message-signalled interrupt {:#x} to {:#x}, outside 0xfee00000-0xfeefffff", data,
                         address);
        return;
    }
    ApicMessage message{.vector = std::uint8_t(data),
                        .mode = DeliveryMode((data >> 8) & 7),
                        .level_triggered = (data >> 15 & 1) != 0,
                        .logical = (address >> 2 & 1) != 0,
                        .destination = std::uint32_t(address >> 12 & 0xff)};
    if (message.mode == DeliveryMode(3) || message.mode == DeliveryMode::startup) {
        log_.guest_error("apic: message-signalled interrupt {:#x} to {:#x}: delivery mode {} is reserved", data,
                         address, unsigned(message.mode));
        return;
    }
    deliver(message);
}

void ApicBus::broadcast_eoi(std::uint8_t vector) {
    for (IoApic* apic : io_) apic->end_of_interrupt(vector);
}

void ApicBus::set_input(unsigned pin, bool level) {
    for (LocalApic* apic : local_) apic->set_lint(pin, level);
}

} // namespace vmm::dev
