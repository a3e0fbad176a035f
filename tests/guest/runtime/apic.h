// The interrupt controllers and clocks of the PC, as small functions over their registers. Addresses are those of every
// PC.
#pragma once

#include "runtime/guest.h"

inline constexpr uint32_t MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0, X2APIC = 0x800;
inline constexpr unsigned APIC_ID = 0x20, APIC_VERSION = 0x30, APIC_TPR = 0x80, APIC_PPR = 0xa0, APIC_EOI = 0xb0,
                          APIC_LDR = 0xd0, APIC_DFR = 0xe0, APIC_SPURIOUS = 0xf0, APIC_ISR = 0x100, APIC_TMR = 0x180,
                          APIC_IRR = 0x200, APIC_ESR = 0x280, APIC_ICR = 0x300, APIC_ICR_HIGH = 0x310,
                          APIC_LVT_TIMER = 0x320, APIC_LVT_LINT0 = 0x350, APIC_LVT_LINT1 = 0x360,
                          APIC_LVT_ERROR = 0x370, APIC_INITIAL = 0x380, APIC_CURRENT = 0x390, APIC_DIVIDE = 0x3e0;

inline uint32_t apic_read(unsigned reg) { return *reinterpret_cast<uint32_t volatile*>(0xfee00000u + reg); }
inline void apic_write(unsigned reg, uint32_t value) {
    *reinterpret_cast<uint32_t volatile*>(0xfee00000u + reg) = value;
}
inline bool apic_bit(unsigned bank, unsigned vector) {
    return apic_read(bank + (vector / 32) * 0x10) >> (vector % 32) & 1;
}
inline void apic_eoi() { apic_write(APIC_EOI, 0); }
inline void apic_enable() { apic_write(APIC_SPURIOUS, 0x1ff); }
// An IPI in xAPIC mode: destination is an APIC id, command the low half of the ICR. Waits until it is sent.
void apic_ipi(uint32_t destination, uint32_t command);

inline uint32_t ioapic_read(unsigned index) {
    *reinterpret_cast<uint32_t volatile*>(0xfec00000u) = index;
    return *reinterpret_cast<uint32_t volatile*>(0xfec00010u);
}
inline void ioapic_write(unsigned index, uint32_t value) {
    *reinterpret_cast<uint32_t volatile*>(0xfec00000u) = index;
    *reinterpret_cast<uint32_t volatile*>(0xfec00010u) = value;
}
// low: vector, delivery mode, polarity, trigger, mask; to APIC id `destination`.
void ioapic_route(unsigned pin, uint32_t low, uint8_t destination = 0);

// ICW1..4 on both controllers at vectors base and base + 8, everything masked.
void pic_init(uint8_t base);
inline void pic_mask(uint16_t mask) {
    outb(0x21, uint8_t(mask));
    outb(0xa1, uint8_t(mask >> 8));
}

// PIT channel n with a mode and a count; its current count.
void pit_start(unsigned channel, unsigned mode, uint16_t count);
uint16_t pit_count(unsigned channel);
// The ACPI PM timer's port (found through the PCI function 0:1.3), and its 24 counting bits (3579545 Hz).
uint32_t pm_timer();
// Waits that many microseconds of the PM timer.
void wait_microseconds(uint32_t n);
uint32_t pci_read(unsigned device, unsigned function, unsigned offset);
void pci_write(unsigned device, unsigned function, unsigned offset, uint32_t value);

// Waits, interrupts on, until *flag is at least `wanted`; false after about `microseconds`.
bool wait_for(unsigned volatile& flag, unsigned wanted, uint32_t microseconds = 20000000);
