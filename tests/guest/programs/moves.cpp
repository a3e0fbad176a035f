// Timers, levels, IPIs and halts that must all arrive, once, while the machine changes engines under the program. Every
// wait has a limit, and what is awaited is always the one event that keeps a chain going: a lost one is seen.
#include "runtime/apic.h"
#include "runtime/smp.h"

namespace {
constexpr unsigned CHAIN = 100;
unsigned volatile hits[256];

void line(unsigned pin, bool level) { outb(uint16_t(0x2000 + pin), level); }

void start() {
    apic_enable();
    memset(const_cast<unsigned*>(hits), 0, sizeof hits);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_DIVIDE, 0xb);
    for (unsigned vector = 0x50; vector < 0x60; ++vector)
        set_handler(vector, [](Frame* f) {
            hits[f->vector] = hits[f->vector] + 1;
            apic_eoi();
        });
}
void stop() {
    cli();
    apic_write(APIC_LVT_TIMER, 0x10000);
    for (unsigned pin = 0; pin < 24; ++pin) ioapic_write(0x10 + pin * 2, 0x10000);
    pic_mask(0xffff);
}

uint64_t hash(unsigned rounds) {
    uint64_t h = 0x123456789abcdef1;
    static uint8_t from[64], to[64];
    memset(from, 0, sizeof from);
    for (unsigned n = 0; n < rounds; ++n) {
        h ^= h << 13, h ^= h >> 7, h ^= h << 17;
        memcpy(from + (h & 31), &h, 8);
        void const* source = from;
        void* target = to;
        word count = sizeof to;
        ASM("rep movsb" : "+S"(source), "+D"(target), "+c"(count)::"memory");
        uint64_t word_of_it;
        memcpy(&word_of_it, to + (h >> 5 & 31), 8);
        h += word_of_it * 3;
    }
    return h;
}
} // namespace

CASE(work_amid_periodic_timers) {
    start();
    uint64_t wanted = hash(2000);
    apic_write(APIC_LVT_TIMER, 0x20050);
    apic_write(APIC_INITIAL, 2000000); // 2 ms
    ioapic_route(2, 0x51);
    pit_start(0, 2, 2386); // 2 ms
    sti();
    for (unsigned n = 0; n < 20000 && (hits[0x50] < 50 || hits[0x51] < 50); ++n) CHECK_EQ(hash(2000), wanted);
    CHECK(hits[0x50] >= 50);
    CHECK(hits[0x51] >= 50);
    stop();
}

CASE(a_chain_of_one_shot_timers) {
    start();
    set_handler(0x52, [](Frame*) {
        hits[0x52] = hits[0x52] + 1;
        if (hits[0x52] < CHAIN) apic_write(APIC_INITIAL, 500000);
        apic_eoi();
    });
    apic_write(APIC_LVT_TIMER, 0x52);
    apic_write(APIC_INITIAL, 500000);
    CHECK(wait_for(hits[0x52], CHAIN));
    CHECK_EQ(hits[0x52], CHAIN);
    stop();
}

CASE(a_chain_of_deadlines) {
    if (!(cpuid(1).c >> 24 & 1)) SKIP("no TSC-deadline timer");
    start();
    static uint64_t step;
    step = 500000;
    set_handler(0x58, [](Frame*) {
        hits[0x58] = hits[0x58] + 1;
        if (hits[0x58] < CHAIN) wrmsr(0x6e0, rdtsc() + step);
        apic_eoi();
    });
    apic_write(APIC_LVT_TIMER, 0x40058);
    wrmsr(0x6e0, rdtsc() + step);
    CHECK(wait_for(hits[0x58], CHAIN));
    CHECK_EQ(hits[0x58], CHAIN);
    stop();
}

CASE(a_chain_of_pit_one_shots) {
    start();
    set_handler(0x59, [](Frame*) {
        hits[0x59] = hits[0x59] + 1;
        if (hits[0x59] < CHAIN) outb(0x40, 597 & 0xff), outb(0x40, 597 >> 8); // 0.5 ms
        apic_eoi();
    });
    ioapic_route(2, 0x59);
    pit_start(0, 4, 597);
    CHECK(wait_for(hits[0x59], CHAIN));
    unsigned never = 0;
    wait_for(never, 1, 100000);
    CHECK_EQ(hits[0x59], CHAIN); // and no more
    stop();
}

// While an HPET gives the timer interrupt the PIT, which goes on counting, gives none.
CASE(an_hpet_in_the_pits_place) {
    auto hpet = [](unsigned offset) -> uint64_t volatile& {
        return *reinterpret_cast<uint64_t volatile*>(0xfed00000u + offset);
    };
    uint64_t period = hpet(0) >> 32;
    if (!period || hpet(0) == ~0ull) SKIP("no HPET");
    start();
    uint64_t const ticks = 1000000000000 / period; // a millisecond
    hpet(0x10) = 0;
    hpet(0xf0) = 0;
    hpet(0x100) = 0x4c; // periodic, the next write sets the period
    hpet(0x108) = ticks;
    ioapic_route(2, 0x5a);
    pit_start(0, 2, 600);
    hpet(0x10) = 3;
    CHECK(wait_for(hits[0x5a], CHAIN));
    hpet(0x10) = 0;
    hpet(0x100) = 0;
    CHECK(hits[0x5a] <= hpet(0xf0) / ticks + 1);
    stop();
    pit_start(0, 0, 1);
}

CASE(time_never_goes_back) {
    uint64_t last = rdtsc();
    uint32_t from = pm_timer();
    while (((pm_timer() - from) & 0xffffff) < 3579545 / 5) // 200 ms
        for (unsigned n = 0; n < 1000; ++n) {
            uint64_t now = rdtsc();
            CHECK(now >= last);
            last = now;
        }
}

// Against the ACPI timer, which is virtual time. What comes between makes a window look fast, never slow: a host that
// is late, and a move to a KVM whose counter cannot be set back by the time that the move took.
CASE(the_time_stamp_counter_keeps_its_rate) {
    constexpr unsigned windows = 400;
    static uint64_t rates[windows];
    uint64_t lowest = ~0ull;
    for (uint64_t& rate : rates) {
        uint64_t start_tsc = rdtsc();
        uint32_t from = pm_timer(), passed = 0;
        while ((passed = (pm_timer() - from) & 0xffffff) < 3579545 / 2000) {
        } // 0.5 ms
        rate = (rdtsc() - start_tsc) * 1000 / passed;
        if (rate < lowest) lowest = rate;
    }
    unsigned same = 0;
    for (uint64_t rate : rates) same += rate < lowest + lowest / 4;
    CHECK(same > windows / 2);
}

// kvmclock's page (KVM, Documentation/virt/kvm/x86/msr.rst): only KVM writes it, but a guest reads on wherever it is.
struct alignas(64) ClockPage {
    uint32_t volatile version;
    uint32_t padding;
    uint64_t tsc, nanoseconds;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags;
};
uint64_t read_clock(ClockPage const& page) {
    for (;;) {
        uint32_t version = page.version;
        ASM("" ::: "memory");
        uint64_t delta = rdtsc() - page.tsc;
        delta = page.shift < 0 ? delta >> -page.shift : delta << page.shift;
        uint64_t now = page.nanoseconds + uint64_t(static_cast<unsigned __int128>(delta) * page.multiplier >> 32);
        ASM("" ::: "memory");
        if (!(version & 1) && version == page.version) return now;
    }
}
CASE(kvmclock_never_goes_back) {
    static ClockPage page;
    constexpr unsigned clock_msr = 0x4b564d01, tries = 20'000;
    bool there = false;
    for (unsigned n = 0; n < tries && !there; ++n) // until KVM is the engine
        there = attempt([] { wrmsr(clock_msr, word(&page) | 1); }).vector == NONE;
    if (!there) SKIP("no KVM came by");
    while (!page.multiplier) {
    }
    uint64_t first = read_clock(page), last = first;
    uint32_t from = pm_timer();
    while (((pm_timer() - from) & 0xffffff) < 3579545 / 5) // 200 ms
        for (unsigned n = 0; n < 1000; ++n) {
            uint64_t now = read_clock(page);
            CHECK(now >= last);
            last = now;
        }
    uint64_t passed = last - first;
    CHECK(passed > 190'000'000);
    CHECK(passed < 5'000'000'000); // a KVM that ignores offsets shows the time that moves took
    attempt([] { wrmsr(clock_msr, 0); });
}

CASE(a_chain_of_halts) {
    start();
    apic_write(APIC_LVT_TIMER, 0x53);
    for (unsigned n = 1; n <= CHAIN; ++n) {
        apic_write(APIC_INITIAL, 1000000);
        while (hits[0x53] < n) ASM("sti; hlt; cli" ::: "memory");
        CHECK_EQ(hits[0x53], n);
    }
    stop();
}

CASE(a_chain_of_level_interrupts) {
    start();
    set_handler(0x54, [](Frame*) {
        hits[0x54] = hits[0x54] + 1;
        line(11, 0);
        apic_eoi();
    });
    ioapic_route(11, 0x8054);
    for (unsigned n = 1; n <= CHAIN; ++n) {
        line(11, 1);
        if (!wait_for(hits[0x54], n)) break;
    }
    CHECK(hits[0x54] >= CHAIN);
    stop();
}

CASE(a_chain_of_pic_interrupts) {
    start();
    pic_init(0x60);
    set_handler(0x65, [](Frame*) {
        hits[0x65] = hits[0x65] + 1;
        outb(0x20, 0x20);
    });
    apic_write(APIC_LVT_LINT0, 0x700);
    pic_mask(0xffdf);
    for (unsigned n = 1; n <= CHAIN; ++n) {
        line(5, 1);
        if (!wait_for(hits[0x65], n)) break;
        line(5, 0);
    }
    CHECK_EQ(hits[0x65], CHAIN);
    apic_write(APIC_LVT_LINT0, 0x10000);
    stop();
}

CASE(ipis_to_and_fro) {
    if (command_number("cpus", 1) < 2) SKIP("one CPU");
    CHECK_EQ(start_cpus(), 2);
    start();
    set_handler(0x56, [](Frame*) { // on the other CPU
        hits[0x56] = hits[0x56] + 1;
        apic_eoi();
        apic_ipi(0, 0x57);
    });
    begin(
        1,
        [](word) {
            while (hits[0x56] < CHAIN) ASM("sti; pause; nop; nop; nop; nop; nop; nop; nop; nop; cli" ::: "memory");
        },
        0);
    for (unsigned n = 1; n <= CHAIN; ++n) {
        apic_ipi(apic_id_of(1), 0x56);
        if (!wait_for(hits[0x57], n)) break;
    }
    CHECK_EQ(hits[0x57], CHAIN);
    CHECK_EQ(hits[0x56], CHAIN);
    if (hits[0x56] >= CHAIN) finish(1);
    stop();
}
