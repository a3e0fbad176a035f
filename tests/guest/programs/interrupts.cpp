// The local APIC, I/O APIC and 8259 pair as one CPU sees them: timers, self IPIs, priorities, EOI, level and edge lines
// (through the test device's lines at 0x2000), shadows of STI and MOV SS, waking from HLT.
#include "runtime/apic.h"

namespace {
unsigned volatile hits[256];
unsigned volatile order[16], ordered;
uint8_t volatile last_vector;
void count_apic(Frame* f) {
    hits[f->vector & 0xff] = hits[f->vector & 0xff] + 1;
    if (ordered < 16) order[ordered] = unsigned(f->vector);
    ordered = ordered + 1;
    apic_eoi();
}
void start() {
    apic_enable();
    apic_write(APIC_TPR, 0);
    pic_mask(0xffff);
    apic_write(APIC_LVT_TIMER, 0x10000);
    for (unsigned n = 0; n < 256; ++n) hits[n] = 0;
    ordered = 0;
    for (unsigned vector = 0x30; vector < 0xff; ++vector) set_handler(vector, count_apic);
}
void stop() {
    cli();
    apic_write(APIC_LVT_TIMER, 0x10000);
    for (unsigned vector = 0x30; vector < 0xff; ++vector) set_handler(vector, nullptr);
}
void line(unsigned number, unsigned level) { outb(uint16_t(0x2000 + number), uint8_t(level)); }
constexpr uint32_t SELF = 0x40000;
} // namespace

CASE(self_ipi) {
    start();
    apic_write(APIC_ICR, SELF | 0x55);
    CHECK(apic_bit(APIC_IRR, 0x55));
    CHECK(wait_for(hits[0x55], 1));
    CHECK_EQ(hits[0x55], 1);
    CHECK(!apic_bit(APIC_IRR, 0x55));
    CHECK(!apic_bit(APIC_ISR, 0x55));
    stop();
}

CASE(priorities_and_tpr) {
    start();
    apic_write(APIC_ICR, SELF | 0x45);
    apic_write(APIC_ICR, SELF | 0x85);
    apic_write(APIC_ICR, SELF | 0x65);
    CHECK(wait_for(ordered, 3));
    CHECK_EQ(order[0], 0x85);
    CHECK_EQ(order[1], 0x65);
    CHECK_EQ(order[2], 0x45);
    apic_write(APIC_TPR, 0x60);
    CHECK_EQ(read_cr8(), 6);
    CHECK_EQ(apic_read(APIC_PPR), 0x60);
    apic_write(APIC_ICR, SELF | 0x66);
    apic_write(APIC_ICR, SELF | 0x71);
    CHECK(wait_for(hits[0x71], 1));
    CHECK_EQ(hits[0x66], 0);
    write_cr8(5);
    CHECK_EQ(apic_read(APIC_TPR), 0x50);
    CHECK(wait_for(hits[0x66], 1));
    write_cr8(0);
    stop();
}

CASE(a_lower_priority_waits_for_eoi) {
    start();
    set_handler(0x81, [](Frame* f) {
        hits[f->vector] = 1;
        apic_write(APIC_ICR, SELF | 0x82); // same class: waits
        apic_write(APIC_ICR, SELF | 0x91); // higher class: nests
        sti();
        ASM("nop; nop");
        CHECK_EQ(hits[0x91], 1);
        CHECK_EQ(hits[0x82], 0);
        CHECK(apic_bit(APIC_ISR, 0x81));
        cli();
        apic_eoi();
    });
    apic_write(APIC_ICR, SELF | 0x81);
    CHECK(wait_for(hits[0x82], 1));
    stop();
}

CASE(timer_one_shot_and_periodic) {
    start();
    apic_write(APIC_DIVIDE, 0xb); // by 1
    apic_write(APIC_LVT_TIMER, 0x70);
    apic_write(APIC_INITIAL, 100000);
    uint32_t first = apic_read(APIC_CURRENT);
    CHECK(first <= 100000);
    CHECK(wait_for(hits[0x70], 1));
    CHECK_EQ(apic_read(APIC_CURRENT), 0);
    wait_microseconds(2000);
    CHECK_EQ(hits[0x70], 1);
    apic_write(APIC_LVT_TIMER, 0x20071);
    apic_write(APIC_INITIAL, 1000000);
    CHECK(wait_for(hits[0x71], 5));
    apic_write(APIC_INITIAL, 0); // stops it
    unsigned now = hits[0x71];
    sti();
    wait_microseconds(5000);
    cli();
    CHECK(hits[0x71] <= now + 1);
    apic_write(APIC_LVT_TIMER, 0x10072); // masked
    apic_write(APIC_INITIAL, 1000);
    sti();
    wait_microseconds(1000);
    cli();
    CHECK_EQ(hits[0x72], 0);
    stop();
}

CASE(timer_tsc_deadline) {
    if (!bit(cpuid(1).c, 24)) SKIP("no TSC-deadline timer");
    start();
    apic_write(APIC_LVT_TIMER, 0x40073);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 100000000000);
    CHECK(rdmsr(MSR_TSC_DEADLINE) != 0);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1000000);
    CHECK(wait_for(hits[0x73], 1));
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    wrmsr(MSR_TSC_DEADLINE, 1); // in the past: at once
    CHECK(wait_for(hits[0x73], 2));
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 100000000000);
    wrmsr(MSR_TSC_DEADLINE, 0); // disarmed
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    stop();
}

CASE(spurious_vector_and_errors) {
    start();
    apic_write(APIC_LVT_ERROR, 0xe1);
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ICR, SELF | 5); // an illegal vector
    apic_write(APIC_ESR, 0);
    CHECK_EQ(apic_read(APIC_ESR) & 0x60, 0x20);
    apic_write(APIC_LVT_ERROR, 0x10000);
    apic_write(APIC_ESR, 0);
    sti();
    ASM("nop");
    cli();
    stop();
}

CASE(sti_and_mov_ss_hold_one_instruction) {
    start();
    static word saved_ip;
    Handler note = [](Frame* f) {
        saved_ip = f->ip;
        apic_eoi();
    };
    set_handler(0x56, note);
    word at;
    apic_write(APIC_ICR, SELF | 0x56);
    ASM("sti; .globl shadow_0, shadow_1\nshadow_0: nop; shadow_1: nop; cli" ::: "memory");
    ASM("lea shadow_1(%%rip), %0" : "=r"(at));
    CHECK_EQ(saved_ip, at);
    saved_ip = 0;
    apic_write(APIC_ICR, SELF | 0x56);
    ASM("sti; cli" ::: "memory"); // nothing gets between
    CHECK_EQ(saved_ip, 0);
    // MOV SS has its own shadow behind that of STI.
    ASM("mov %%ss, %%eax; sti; mov %%eax, %%ss\n.globl shadow_2\nnop; shadow_2: nop; cli" ::: "eax", "memory");
    ASM("lea shadow_2(%%rip), %0" : "=r"(at));
    CHECK_EQ(saved_ip, at);
    stop();
}

CASE(hlt_wakes_on_a_timer) {
    start();
    apic_write(APIC_DIVIDE, 0xb);
    for (unsigned n = 1; n <= 5; ++n) {
        apic_write(APIC_LVT_TIMER, 0x74);
        apic_write(APIC_INITIAL, 300000);
        ASM("sti; hlt; cli" ::: "memory");
        CHECK_EQ(hits[0x74], n);
    }
    stop();
}

CASE(ioapic_edge_line) {
    start();
    line(5, 0);
    ioapic_route(5, 0x58);
    line(5, 1);
    CHECK(wait_for(hits[0x58], 1));
    line(5, 1); // no new edge
    wait_for(hits[0x58], 2, 1000);
    CHECK_EQ(hits[0x58], 1);
    line(5, 0);
    line(5, 1);
    CHECK(wait_for(hits[0x58], 2));
    line(5, 0);
    ioapic_write(0x10 + 5 * 2, 0x10000);
    stop();
}

CASE(ioapic_level_line_and_remote_irr) {
    start();
    line(11, 0);
    set_handler(0x59, [](Frame*) {
        hits[0x59] = hits[0x59] + 1;
        CHECK(ioapic_read(0x10 + 11 * 2) & 0x4000); // remote IRR
        if (hits[0x59] >= 3) line(11, 0);           // else it would come for ever
        apic_eoi();
    });
    ioapic_route(11, 0x8059);
    line(11, 1);
    CHECK(wait_for(hits[0x59], 3)); // comes again while the line stays up
    wait_for(hits[0x59], 4, 1000);
    CHECK_EQ(hits[0x59], 3);
    CHECK(!(ioapic_read(0x10 + 11 * 2) & 0x4000));
    CHECK(!apic_bit(APIC_TMR, 0x58));
    ioapic_write(0x10 + 11 * 2, 0x18059); // masked
    line(11, 1);
    wait_for(hits[0x59], 4, 1000);
    CHECK_EQ(hits[0x59], 3);
    ioapic_write(0x10 + 11 * 2, 0x8059); // unmasking delivers a level
    CHECK(wait_for(hits[0x59], 4));
    line(11, 0);
    ioapic_write(0x10 + 11 * 2, 0x10000);
    stop();
}

CASE(pic_through_lint0) {
    start();
    apic_write(APIC_LVT_LINT0, 0x700); // ExtINT
    outb(0x4d0, 0), outb(0x4d1, 0);    // edges, PCI's inputs too
    pic_init(0x90);
    Handler pic_handler = [](Frame* f) {
        hits[f->vector] = hits[f->vector] + 1;
        if (ordered < 16) order[ordered] = unsigned(f->vector);
        ordered = ordered + 1;
        if (f->vector >= 0x98) outb(0xa0, 0x20);
        outb(0x20, 0x20);
    };
    for (unsigned n = 0x90; n < 0xa0; ++n) set_handler(n, pic_handler);
    line(5, 0);
    line(10, 0);
    pic_mask(uint16_t(~(1 << 5 | 1 << 10 | 1 << 2)));
    line(5, 1);
    CHECK(wait_for(hits[0x95], 1));
    line(5, 0);
    line(10, 1);
    CHECK(wait_for(hits[0x9a], 1));
    line(10, 0);
    line(5, 1);
    line(10, 1);
    ordered = 0;
    CHECK(wait_for(ordered, 2));
    CHECK_EQ(order[0], 0x9a); // the slave sits at priority 2
    CHECK_EQ(order[1], 0x95);
    line(5, 0);
    line(10, 0);
    outb(0x20, 0x0b); // ISR
    CHECK_EQ(inb(0x20), 0);
    pic_mask(0xffff);
    line(7, 0);
    line(5, 1);
    outb(0x20, 0x0a); // IRR shows masked requests
    CHECK_EQ(inb(0x20) & 0x20, 0x20);
    line(5, 0);
    apic_write(APIC_LVT_LINT0, 0x10000);
    stop();
}

CASE(x2apic_mode) {
    if (!bit(cpuid(1).c, 21)) SKIP("no x2APIC");
    start();
    uint64_t base = rdmsr(MSR_APIC_BASE);
    CHECK_EQ(attempt([] { rdmsr(X2APIC + 2); }).vector, GP); // not yet
    wrmsr(MSR_APIC_BASE, base | 0x400);
    CHECK_EQ(rdmsr(X2APIC + 2), 0);
    wrmsr(X2APIC + 0xf, 0x1ff);
    wrmsr(X2APIC + 0x3f, 0x57); // self IPI
    set_handler(0x57, [](Frame*) {
        hits[0x57] = hits[0x57] + 1;
        wrmsr(X2APIC + 0xb, 0);
    });
    CHECK(wait_for(hits[0x57], 1));
    CHECK_EQ(attempt([] { wrmsr(X2APIC + 0xb, 1); }).vector, GP);      // EOI takes 0
    CHECK_EQ(attempt([] { wrmsr(X2APIC + 2, 1); }).vector, GP);        // the id is read-only
    CHECK_EQ(attempt([] { rdmsr(X2APIC + 0xe); }).vector, GP);         // no DFR
    CHECK_EQ(rdmsr(X2APIC + 0xd), 1);                                  // logical id of APIC 0
    CHECK_EQ(attempt([=] { wrmsr(MSR_APIC_BASE, base); }).vector, GP); // not straight back to xAPIC
    wrmsr(MSR_APIC_BASE, base & ~uint64_t(0xc00));
    CHECK(!bit(cpuid(1).d, 9)); // a disabled APIC leaves CPUID
    wrmsr(MSR_APIC_BASE, base);
    CHECK(bit(cpuid(1).d, 9));
    stop();
}

CASE(nmi_to_itself_is_blocked_until_iret) {
    start();
    static unsigned volatile inside;
    inside = 0;
    set_handler(NMI, [](Frame*) {
        inside = inside + 1;
        if (inside == 1) {
            apic_write(APIC_ICR, SELF | 0x400); // rejected or pending, but not taken here
            apic_ipi(0, 0x400);
            ASM("nop; nop; nop");
            CHECK_EQ(inside, 1);
        }
    });
    apic_ipi(apic_read(APIC_ID) >> 24, 0x400);
    wait_microseconds(100);
    CHECK_EQ(inside, 2);
    set_handler(NMI, nullptr);
    stop();
}
