// Writes that an engine may take without stopping the CPU: a doorbell counts each ring, and writes that come late come
// before anything that could tell.
#include "runtime/apic.h"
#include "runtime/guest.h"

namespace {
constexpr uint16_t flush_port = 0xe4, delay_port = 0x80;
uint32_t volatile* scratch() { return reinterpret_cast<uint32_t volatile*>(uintptr_t(0xff000000)); }
} // namespace

CASE(a_doorbell_is_rung_as_often_as_it_was_written) {
    uint32_t const before = inl(flush_port);
    for (unsigned n = 0; n < 3000; ++n) outl(flush_port, n * 4096);
    uint32_t const from = pm_timer();
    while (inl(flush_port) - before != 3000 && ((pm_timer() - from) & 0xffffff) < 3579545 * 4u) {
    }
    CHECK_EQ(inl(flush_port) - before, 3000);
}

CASE(late_writes_are_there_for_the_next_read) {
    for (unsigned round = 0; round < 40; ++round) {
        for (unsigned n = 0; n < 200; ++n) scratch()[n] = round * 1000 + n; // more than the kernel's ring holds
        for (unsigned n = 0; n < 200; n += 37) CHECK_EQ(scratch()[n], round * 1000 + n);
    }
    *reinterpret_cast<uint64_t volatile*>(scratch()) = 0x1122334455667788;
    CHECK_EQ(scratch()[1], 0x11223344);
    *reinterpret_cast<uint8_t volatile*>(scratch()) = 0x99;
    CHECK_EQ(scratch()[0], 0x55667799);
}

CASE(the_delay_port_keeps_its_last_byte) {
    for (unsigned n = 0; n < 1000; ++n) {
        outb(delay_port, uint8_t(n));
        if (n % 100 == 0) CHECK_EQ(inb(delay_port), uint8_t(n));
    }
    CHECK_EQ(inb(delay_port), uint8_t(999));
}

CASE(writes_of_two_kinds_stay_in_order) {
    for (unsigned n = 0; n < 300; ++n) {
        scratch()[7] = n;
        outb(delay_port, uint8_t(n));
        outb(0xe0, uint8_t(n)); // the latch: an ordinary port
        CHECK_EQ(scratch()[7], n);
        CHECK_EQ(inb(0xe0), uint8_t(n));
    }
}
