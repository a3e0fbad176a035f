// Starting the other CPUs and handing them work.
#include "runtime/smp.h"

#include "runtime/apic.h"

extern "C" {
extern char ap_trampoline[], ap_trampoline_end[];
void ap_entry(unsigned number);
}

namespace {
struct Mailbox {
    void (*volatile work)(word);
    word volatile argument;
    unsigned volatile alive, id;
};
Mailbox boxes[MAX_CPUS];
unsigned cpus = 0;
} // namespace

extern "C" void ap_entry(unsigned number) {
    lgdt({GDT_SLOTS * 8 - 1, word(gdt())});
    lidt({256 * 16 - 1, word(idt())});
    apic_enable();
    if (number >= MAX_CPUS)
        for (;;) ASM("hlt");
    Mailbox& box = boxes[number];
    box.id = apic_read(APIC_ID) >> 24;
    box.alive = 1;
    for (;;) {
        while (!box.work) pause();
        box.work(box.argument);
        ASM("cli" ::: "memory");
        box.work = nullptr;
    }
}

unsigned start_cpus() {
    if (cpus) return cpus;
    memcpy(reinterpret_cast<void*>(0x8000), ap_trampoline, size_t(ap_trampoline_end - ap_trampoline));
    apic_enable();
    apic_ipi(0, 0xc4500); // INIT to all but self
    wait_microseconds(10000);
    apic_ipi(0, 0xc4608); // SIPI, page 8
    wait_microseconds(200);
    apic_ipi(0, 0xc4608);
    // Where the command line says how many there are, those are waited for: a busy host may take its time.
    unsigned long const expected = command_number("cpus", 0);
    for (unsigned tries = 0; tries < 100; ++tries) {
        wait_microseconds(100000);
        if (!expected || expected > MAX_CPUS || boxes[expected - 1].alive) break;
    }
    for (cpus = 1; cpus < MAX_CPUS && boxes[cpus].alive;) ++cpus;
    return cpus;
}

void begin(unsigned cpu, void (*work)(word), word argument) {
    boxes[cpu].argument = argument;
    ASM("" ::: "memory");
    boxes[cpu].work = work;
}

void finish(unsigned cpu) {
    while (boxes[cpu].work) pause();
}

uint32_t apic_id_of(unsigned cpu) { return boxes[cpu].id; }
