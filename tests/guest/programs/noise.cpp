// Random bytes to random ports and device memory: vmm must outlive it, whatever the guest does to itself. seed=N and
// count=N on the command line make a run repeatable; interrupts stay off, and the exit port, the reset registers and
// the IPI register are left out so that the run lasts.
#include "runtime/guest.h"

namespace {
uint64_t state;
uint32_t random32() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return uint32_t(state >> 16);
}
bool ends_the_run(uint16_t port) {
    return (port >= 0xf1 && port <= 0xf7) || port == 0x92 || port == 0x64 || port == 0x60 || port == 0xcf9 ||
           (port >= 0x600 && port <= 0x63f) || port == 0xb2 || port == 0x501;
}
bool ends_the_run(uint16_t port, unsigned size) {
    for (unsigned n = 0; n < size; ++n)
        if (ends_the_run(uint16_t(port + n))) return true;
    return false;
}
// A configuration address on bus 0 that is not the power management function, which could move the power-off register
// anywhere.
uint32_t config_address(uint32_t value) {
    value = (value & 0xfffc) | 0x80000000;
    return (value >> 8 & 0xff) == (1 << 3 | 3) ? value ^ 0x800 : value;
}
void port_access() {
    static uint16_t const known[] = {0x00,  0x08,   0x20,  0x21,  0x40,   0x43,   0x61,  0x70,  0x71,
                                     0x80,  0x87,   0xa0,  0xa1,  0xc0,   0xd0,   0xe0,  0xe9,  0x170,
                                     0x1f0, 0x2f8,  0x3b0, 0x3c0, 0x3d4,  0x3f2,  0x3f8, 0x4d0, 0x510,
                                     0x514, 0xaf00, 0xcf8, 0xcfc, 0xc000, 0xc100, 0x2000};
    uint32_t r = random32();
    uint16_t port =
        r & 1 ? uint16_t(known[(r >> 1) % (sizeof known / sizeof *known)] + (r >> 8 & 15)) : uint16_t(r >> 8);
    if (ends_the_run(port) || port == 0xe9) return;
    uint32_t value = random32();
    switch (r >> 28 & 7) {
    case 0: outb(port, uint8_t(value)); break;
    case 1:
        if (!ends_the_run(port, 2)) outw(port, uint16_t(value));
        break;
    case 2:
        if (port == 0xcf8)
            outl(port, config_address(value));
        else if (!ends_the_run(port, 4))
            outl(port, value);
        break;
    case 3: inb(port); break;
    case 4: inw(port); break;
    case 5: inl(port); break;
    default: outb(port, uint8_t(value)); break;
    }
}
// Registers that hold an interrupt message. Of the modes it may ask for, INIT ends the run: the CPU goes on at the
// reset vector, where there is no firmware, and what it does from there is chance (seed 12 with count=400000 came to
// rest in a HLT). SMIs come back: random_accesses() leaves an RSM where they go.
bool holds_a_message(uint32_t address) {
    uint32_t hpet = address - 0xfed00100;
    return (address >= 0xfee00320 - 7 && address < 0xfee00380) || (address >= 0xfec00010 - 7 && address < 0xfec00014) ||
           (hpet < 0x100 && (hpet & 0x1f) >= 0x10 - 7);
}
void memory_access() {
    static uint32_t const bases[] = {0xfee00000, 0xfec00000, 0xfed00000, 0xa0000,    0xb8000,
                                     0xff000000, 0xfebc0000, 0xe0000000, 0xfd000000, 0xffff0000};
    uint32_t r = random32(), address = bases[r % 10] + (r >> 8 & 0xfff);
    if (address >= 0xfee002f0 && address < 0xfee00310) return; // an INIT to itself ends the run
    auto at = reinterpret_cast<void volatile*>(word(address));
    uint64_t value = uint64_t(random32()) << 32 | random32();
    if (holds_a_message(address)) {
        constexpr uint32_t init = 0x100; // INIT is 101, SMI 010, NMI 100, ExtINT 111 would be answered by nobody
        *static_cast<uint32_t volatile*>(reinterpret_cast<void volatile*>(word(address & ~3u))) =
            uint32_t(value) & ~init;
        return;
    }
    switch (r >> 28 & 7) {
    case 0: *static_cast<uint8_t volatile*>(at) = uint8_t(value); break;
    case 1: *static_cast<uint16_t volatile*>(at) = uint16_t(value); break;
    case 2: *static_cast<uint32_t volatile*>(at) = uint32_t(value); break;
    case 3: *static_cast<uint64_t volatile*>(at) = value; break;
    case 4: (void)*static_cast<uint8_t volatile*>(at); break;
    case 5: (void)*static_cast<uint16_t volatile*>(at); break;
    case 6: (void)*static_cast<uint64_t volatile*>(at); break;
    default: (void)*static_cast<uint32_t volatile*>(at); break;
    }
}
} // namespace

CASE(random_accesses) {
    unsigned long seed = command_number("seed", 1), count = command_number("count", 200000);
    state = seed * 0x9e3779b97f4a7c15 + 1;
    for (unsigned vector = 0; vector < 256; ++vector)
        set_handler(vector, [](Frame* f) {
            if (f->vector == GP || f->vector == PF || f->vector == UD) escape(f);
        });
    constexpr word smi_handler = 0x38000;
    static uint8_t const rsm[] = {0x0f, 0xaa};
    memcpy(reinterpret_cast<void*>(smi_handler), rsm, sizeof rsm);
    for (unsigned long n = 0; n < count; ++n) {
        attempt([] { random32() & 1 ? port_access() : memory_access(); });
    }
    for (unsigned vector = 0; vector < 256; ++vector) set_handler(vector, nullptr);
    print("%lu accesses with seed %lu\n", count, seed);
}
