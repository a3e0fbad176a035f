// CpuBus: the small interface through which every engine reaches the machine. One object per vCPU, made by the board.
#pragma once
#include "vmm/memory/address_space.h"

#include <cstdint>
#include <optional>

namespace vmm {

// Implementations take the device lock themselves where they reach devices; the caller holds no lock. Used on the
// vCPU's thread, except interrupt_pending (any thread, lock-free).
class CpuBus {
public:
    virtual ~CpuBus() = default;

    // The memory this CPU sees now (A20 gate and SMRAM included as far as the board models them).
    virtual AddressSpace& memory() = 0;
    // The CPU enters or leaves system management mode: memory() may be another space from now on, of which the first
    // one's listeners are told too. Called again with what already holds after resets.
    virtual void set_smm(bool active);
    // Accesses that are not RAM: the local APIC page, devices, unmapped. size 1, 2, 4 or 8, inside one page.
    virtual std::uint64_t mmio_read(GuestPhys a, unsigned size) = 0;
    virtual void mmio_write(GuestPhys a, unsigned size, std::uint64_t value) = 0;
    virtual std::uint32_t port_read(std::uint16_t port, unsigned size) = 0;
    virtual void port_write(std::uint16_t port, unsigned size, std::uint32_t value) = 0;

    // Whether an external interrupt waits (the INTR line). Cheap: polled at block ends.
    virtual bool interrupt_pending() const = 0;
    // Interrupt acknowledge: the vector to deliver, or nothing when it went away (spurious handled by the controllers).
    virtual std::optional<std::uint8_t> acknowledge_interrupt() = 0;
    // CR8.
    virtual std::uint8_t task_priority() = 0;
    virtual void set_task_priority(std::uint8_t cr8) = 0;
    // IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers 0x800-0x8ff. Nothing / false: the access is a #GP(0).
    virtual std::optional<std::uint64_t> apic_msr_read(std::uint32_t index) = 0;
    virtual bool apic_msr_write(std::uint32_t index, std::uint64_t value) = 0;

    // The guest's time stamp counter before IA32_TSC_ADJUST, at tsc_hz() ticks a second of virtual time.
    virtual std::uint64_t tsc() = 0;
    virtual std::uint64_t tsc_hz() const = 0;
    // RDRAND, RDSEED: `size` random bytes (1..8); the host's unless an implementation gives others.
    virtual std::uint64_t random(unsigned size);
    // MONITOR/MWAIT, PAUSE loops: nothing to report yet. FERR# towards IRQ13 (CR0.NE=0).
    virtual void set_ferr(bool asserted) = 0;
};

} // namespace vmm
