// Interrupt controllers and clocks: the parts longer than one register access.
#include "runtime/apic.h"

void apic_ipi(uint32_t destination, uint32_t command) {
    apic_write(APIC_ICR_HIGH, destination << 24);
    apic_write(APIC_ICR, command);
    while (apic_read(APIC_ICR) & 0x1000) pause();
}

void ioapic_route(unsigned pin, uint32_t low, uint8_t destination) {
    ioapic_write(0x10 + pin * 2, 0x10000);
    ioapic_write(0x11 + pin * 2, uint32_t(destination) << 24);
    ioapic_write(0x10 + pin * 2, low);
}

void pic_init(uint8_t base) {
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, base);
    outb(0xa1, uint8_t(base + 8));
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    pic_mask(0xffff);
}

void pit_start(unsigned channel, unsigned mode, uint16_t count) {
    outb(0x43, uint8_t(channel << 6 | 0x30 | mode << 1));
    outb(uint16_t(0x40 + channel), uint8_t(count));
    outb(uint16_t(0x40 + channel), uint8_t(count >> 8));
}

uint16_t pit_count(unsigned channel) {
    outb(0x43, uint8_t(channel << 6));
    uint8_t low = inb(uint16_t(0x40 + channel));
    return uint16_t(low | inb(uint16_t(0x40 + channel)) << 8);
}

static uint32_t pci_address(unsigned device, unsigned function, unsigned offset) {
    return 0x80000000u | device << 11 | function << 8 | (offset & 0xfc);
}

uint32_t pci_read(unsigned device, unsigned function, unsigned offset) {
    outl(0xcf8, pci_address(device, function, offset));
    return inl(0xcfc);
}

void pci_write(unsigned device, unsigned function, unsigned offset, uint32_t value) {
    outl(0xcf8, pci_address(device, function, offset));
    outl(0xcfc, value);
}

uint32_t pm_timer() {
    uint32_t base = pci_read(1, 3, 0x40) & 0xffc0;
    if (!base || !(pci_read(1, 3, 0x80) & 1)) { // no firmware has placed it
        base = 0x600;
        pci_write(1, 3, 0x40, base | 1);
        pci_write(1, 3, 0x80, 1);
    }
    return inl(uint16_t(base + 8)) & 0xffffff;
}

void wait_microseconds(uint32_t n) {
    uint32_t ticks = n / 1000 * 3580 + (n % 1000) * 358 / 100, last = pm_timer();
    for (uint32_t passed = 0; passed < ticks;) {
        uint32_t now = pm_timer();
        passed += (now - last) & 0xffffff;
        last = now;
        pause();
    }
}

bool wait_for(unsigned volatile& flag, unsigned wanted, uint32_t microseconds) {
    uint32_t ticks = microseconds / 100 * 358, last = pm_timer();
    sti();
    for (uint32_t passed = 0; flag < wanted && passed < ticks;) {
        uint32_t now = pm_timer();
        passed += (now - last) & 0xffffff;
        last = now;
    }
    cli();
    return flag >= wanted;
}
