// What `-d guest_errors,unimp` tells of: mistakes a driver can make, each announced by the line that has to appear.
#include "runtime/apic.h"

namespace {
void expect(char const* line) { print("expects: %s\n", line); }
template <class T> void store(uint32_t address, T value) { *reinterpret_cast<T volatile*>(word(address)) = value; }
uint32_t load(uint32_t address) { return *reinterpret_cast<uint32_t volatile*>(word(address)); }
} // namespace

CASE(addresses_that_nobody_answers) {
    expect("port 0x1234: 1-byte write of 0x55: there is no device");
    outb(0x1234, 0x55);
    expect("port 0x1234: 2-byte read: there is no device");
    CHECK_EQ(inw(0x1234), 0xffff);
    expect("memory 0xd0000000: 4-byte write of 0x1234: there is no device");
    store(0xd0000000, 0x1234u);
    expect("memory 0xd0000000: 4-byte read: there is no device");
    CHECK_EQ(load(0xd0000000), 0xffffffff);
    expect("memory 0xfed00010: 1-byte write of 0x1: the device takes 4 to 8 bytes");
    store(0xfed00010, uint8_t(1));
}

CASE(the_local_apic) {
    apic_enable();
    expect("apic 0: IPI with invalid ICR 0x300");
    apic_write(APIC_ICR, 0x300);
    expect("apic 0: IPI with vector 5, below 16");
    apic_write(APIC_ICR, 5);
    expect("apic 0: 4-byte write of 0x1 at 0x304: registers are written as 4 bytes at multiples of 16");
    apic_write(APIC_ICR + 4, 1);
    expect("apic 0: write of 0x1 to register 0x30, which is read-only");
    apic_write(APIC_VERSION, 1);
    expect("apic 0: write of 0x7 to register 0x40, which does not exist");
    apic_write(0x40, 7);
    expect("apic 0: read of register 0x40, which does not exist");
    CHECK_EQ(apic_read(0x40), 0);
    expect("apic 0: LVT register 0x350 is 0x300: delivery mode 3 is reserved");
    apic_write(APIC_LVT_LINT0, 0x300);
    pic_init(0x20);
    outb(0x21, 0xdf);
    outb(0x2000 + 5, 1), outb(0x2000 + 5, 0); // the test device's way to the 8259, whose INTR is LINT0
    outb(0x21, 0xff);
    apic_write(APIC_LVT_LINT0, 0x10000);
}

CASE(the_io_apic) {
    expect("ioapic: write of 0x5 to register 0x1, which is read-only or absent");
    ioapic_write(1, 5);
    expect("ioapic: write of 0x6 to register 0x50, which is read-only or absent");
    ioapic_write(0x50, 6);
    expect("ioapic: pin 10's redirection entry is 0x300: delivery mode 3 is reserved");
    ioapic_write(0x10 + 2 * 10, 0x300);
    outb(0x2000 + 10, 1), outb(0x2000 + 10, 0); // the test device's way to the pin
    ioapic_write(0x10 + 2 * 10, 0x10000);
}

CASE(the_rest) {
    expect("i8042: command 0x99 does not exist");
    outb(0x64, 0x99);
    expect("acpi: the guest asked for sleep type 5, which no table offers");
    outw(0x604, 5 << 10 | 1 << 13);
    expect("rdmsr of unknown register 0x12345");
    attempt([] {
        uint32_t low, high;
        ASM("rdmsr" : "=a"(low), "=d"(high) : "c"(0x12345));
    });
}
