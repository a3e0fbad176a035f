#include "devices/irq/io_apic.h"

namespace vmm::dev {

namespace {
// Memory-mapped registers (82093AA section 3.1) and the indexed ones (3.2).
constexpr std::uint64_t ioregsel = 0x00, iowin = 0x10, eoir = 0x40;
constexpr std::uint8_t ioapicid = 0x00, ioapicver = 0x01, ioapicarb = 0x02, ioredtbl = 0x10;

constexpr std::uint32_t id_mask = 0x0f000000;
// Fields of a redirection entry.
constexpr std::uint64_t entry_logical = 1 << 11, entry_remote_irr = 1 << 14, entry_level = 1 << 15,
                        entry_masked = 1 << 16;
constexpr std::uint64_t entry_writable = 0xff000000'0001afff; // all but Delivery Status, Remote IRR and reserved bits

DeliveryMode mode_of(std::uint64_t entry) { return DeliveryMode((entry >> 8) & 7); }
} // namespace

IoApic::IoApic(Needs needs, Config config) : needs_(needs), config_(config), inputs_(*this) { reset(); }

void IoApic::reset() {
    state_ = State{.id = std::uint32_t(config_.id & 0xf) << 24, .lines = state_.lines};
    state_.redirection.fill(entry_masked);
}

Result<void> IoApic::load(StateReader& from) { return adopt(TRY(load_state<State>(from))); }

Result<void> IoApic::adopt(State const& loaded) {
    if ((loaded.id & ~id_mask) || loaded.lines >> pins)
        return error("the I/O APIC's state holds bits it does not have");
    for (std::uint64_t entry : loaded.redirection)
        if (entry & ~(entry_writable | entry_remote_irr))
            return error("a redirection entry in the I/O APIC's state has reserved bits set");
    state_ = loaded; // what was delivered is in the local APICs' state; nothing is sent again
    return {};
}

void IoApic::set_input(unsigned pin, bool level) {
    std::uint32_t bit = 1u << pin;
    bool was = state_.lines & bit;
    state_.lines = level ? state_.lines | bit : state_.lines & ~bit;
    std::uint64_t entry = state_.redirection[pin];
    if (entry & entry_level)
        service_level(pin);
    else if (level && !was && !(entry & entry_masked))
        send(pin); // an edge on a masked pin is ignored, not held (82093AA section 3.2.4, Interrupt Mask)
}

void IoApic::service_level(unsigned pin) {
    std::uint64_t& entry = state_.redirection[pin];
    bool asserted = state_.lines >> pin & 1;
    if (!asserted || (entry & (entry_masked | entry_remote_irr)) || !(entry & entry_level)) return;
    // Remote IRR is about interrupts that end with an EOI; the other modes are always edges (SDM 10.5.1).
    if (mode_of(entry) == DeliveryMode::fixed || mode_of(entry) == DeliveryMode::lowest_priority)
        entry |= entry_remote_irr;
    send(pin);
}

void IoApic::send(unsigned pin) {
    std::uint64_t entry = state_.redirection[pin];
    if (mode_of(entry) == DeliveryMode(3) || mode_of(entry) == DeliveryMode::startup) {
        needs_.log.guest_error("ioapic: pin {}'s redirection entry is {:#x}: delivery mode {} is reserved", pin, entry,
                               unsigned(mode_of(entry)));
        return;
    }
    needs_.bus.deliver({.vector = std::uint8_t(entry),
                        .mode = mode_of(entry),
                        .level_triggered = (entry & entry_level) != 0,
                        .logical = (entry & entry_logical) != 0,
                        .destination = std::uint32_t(entry >> 56)});
}

void IoApic::end_of_interrupt(std::uint8_t vector) {
    for (unsigned pin = 0; pin < pins; ++pin) {
        std::uint64_t& entry = state_.redirection[pin];
        if (std::uint8_t(entry) != vector || !(entry & entry_remote_irr)) continue;
        entry &= ~entry_remote_irr;
        service_level(pin);
    }
}

std::uint32_t IoApic::read_register() const {
    switch (state_.select) {
    case ioapicid:
    case ioapicarb: return state_.id;
    case ioapicver: return (pins - 1) << 16 | std::uint32_t(config_.version);
    default: break;
    }
    unsigned index = unsigned(state_.select) - ioredtbl;
    if (state_.select < ioredtbl || index >= 2 * pins) return 0;
    return std::uint32_t(state_.redirection[index / 2] >> (index % 2 * 32));
}

void IoApic::write_redirection(unsigned pin, std::uint64_t value) {
    std::uint64_t& entry = state_.redirection[pin];
    entry = (value & entry_writable) | (entry & entry_remote_irr);
    // An edge-triggered entry has no Remote IRR: flipping a stuck entry to edge and back is how drivers without an EOI
    // register free it.
    if (!(entry & entry_level)) entry &= ~entry_remote_irr;
    needs_.bus.redirections_changed();
    service_level(pin);
}

void IoApic::write_register(std::uint32_t value) {
    if (state_.select == ioapicid) {
        state_.id = value & id_mask;
        return;
    }
    unsigned index = unsigned(state_.select) - ioredtbl;
    if (state_.select < ioredtbl || index >= 2 * pins) {
        needs_.log.guest_error("ioapic: write of {:#x} to register {:#x}, which is read-only or absent", value,
                               state_.select);
        return;
    }
    std::uint64_t old = state_.redirection[index / 2];
    write_redirection(index / 2,
                      index % 2 ? (old & 0xffffffff) | std::uint64_t(value) << 32 : (old & ~0xffffffffull) | value);
}

std::uint64_t IoApic::read(std::uint64_t offset, unsigned) {
    if (offset == ioregsel) return state_.select;
    return offset == iowin ? read_register() : 0;
}

void IoApic::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    if (offset == ioregsel)
        state_.select = std::uint8_t(value);
    else if (offset == iowin)
        write_register(std::uint32_t(value));
    else if (offset == eoir && config_.version == Version::v20)
        end_of_interrupt(std::uint8_t(value));
}

} // namespace vmm::dev
