// The PC's clocks: PIT modes, RTC periodic interrupt, HPET, PM timer, TSC, and that they agree with each other.
#include "runtime/apic.h"

namespace {
unsigned volatile hits;
// A measurement between two clocks is spoilt when the host takes the CPU away between their readings: it may try again.
template <class Measure> bool agrees(Measure measure) {
    for (unsigned tries = 0; tries < 20; ++tries)
        if (measure()) return true;
    return false;
}
bool near(uint64_t seen, uint64_t wanted, unsigned percent) {
    return seen * 100 >= wanted * (100 - percent) && seen * 100 <= wanted * (100 + percent);
}
void pic_start(uint16_t mask, Handler handler) {
    apic_enable();
    apic_write(APIC_LVT_LINT0, 0x700);
    pic_init(0x90);
    for (unsigned n = 0x90; n < 0xa0; ++n) set_handler(n, handler);
    hits = 0;
    pic_mask(mask);
}
void pic_stop() {
    cli();
    pic_mask(0xffff);
    apic_write(APIC_LVT_LINT0, 0x10000);
    for (unsigned n = 0x90; n < 0xa0; ++n) set_handler(n, nullptr);
}
uint8_t cmos(uint8_t index) {
    outb(0x70, index);
    return inb(0x71);
}
void set_cmos(uint8_t index, uint8_t value) {
    outb(0x70, index);
    outb(0x71, value);
}
uint64_t volatile& hpet(unsigned offset) { return *reinterpret_cast<uint64_t volatile*>(0xfed00000u + offset); }
} // namespace

CASE(pm_timer_runs_forward) {
    uint32_t last = pm_timer(), wraps = 0;
    for (unsigned n = 0; n < 5000; ++n) {
        uint32_t now = pm_timer();
        wraps += now < last;
        last = now;
    }
    CHECK(wraps <= 1);
}

CASE(pit_counts_at_1193182_hz) {
    outb(0x61, 1); // gate of channel 2
    CHECK(agrees([] {
        pit_start(2, 0, 0xffff);
        uint16_t first = pit_count(2);
        uint32_t pm = pm_timer();
        wait_microseconds(20000);
        uint16_t second = pit_count(2);
        uint32_t pm_ticks = (pm_timer() - pm) & 0xffffff;
        return near(uint16_t(first - second), pm_ticks / 3, 10);
    }));
}

CASE(pit_mode_0_output_and_read_back) {
    outb(0x61, 1);
    pit_start(2, 0, 0xffff); // 55 ms: what follows is done before, on a busy host too
    CHECK_EQ(inb(0x61) & 0x20, 0);
    outb(0x43, 0xe8); // read back the status of channel 2
    uint8_t status = inb(0x42);
    CHECK_EQ(status & 0xbf, 0x30);
    wait_microseconds(60000);
    CHECK_EQ(inb(0x61) & 0x20, 0x20);
    outb(0x43, 0xe8);
    CHECK_EQ(inb(0x42) & 0x80, 0x80);
    outb(0x43, 0xd8); // latch the count: two reads see one value
    uint8_t low = inb(0x42), high = inb(0x42);
    (void)low;
    (void)high;
    outb(0x61, 0); // the gate stops the counting
    pit_start(2, 0, 0x8000);
    uint16_t a = pit_count(2);
    wait_microseconds(1000);
    CHECK_EQ(pit_count(2), a);
}

CASE(pit_periodic_interrupt) {
    pic_start(0xfffe, [](Frame*) {
        hits = hits + 1;
        outb(0x20, 0x20);
    });
    pit_start(0, 2, 11932); // 100 Hz
    uint32_t pm = pm_timer();
    CHECK(wait_for(hits, 10));
    uint32_t ticks = (pm_timer() - pm) & 0xffffff;
    CHECK(ticks > 178000); // ten periods take 357954; a busy host may bunch some of them
    pic_stop();
}

CASE(rtc_periodic_interrupt) {
    pic_start(uint16_t(~(1 << 8 | 1 << 2)), [](Frame* f) {
        if (f->vector != 0x98) return;
        hits = hits + 1;
        outb(0x70, 0xc);
        CHECK_EQ(inb(0x71) & 0xc0, 0xc0);
        outb(0xa0, 0x20);
        outb(0x20, 0x20);
    });
    set_cmos(0xa, 0x26); // 1024 Hz
    cmos(0xc);
    set_cmos(0xb, uint8_t(cmos(0xb) | 0x40));
    uint32_t pm = pm_timer();
    CHECK(wait_for(hits, 100));
    uint32_t ticks = (pm_timer() - pm) & 0xffffff;
    CHECK(ticks > 174000); // a hundred periods take 349565
    set_cmos(0xb, uint8_t(cmos(0xb) & ~0x40));
    cmos(0xc);
    pic_stop();
}

CASE(rtc_holds_a_plausible_date) {
    while (cmos(0xa) & 0x80) pause();
    uint8_t b = cmos(0xb), month = cmos(8), day = cmos(7), hour = cmos(4);
    CHECK(b & 2); // 24 hours
    auto plain = [&](uint8_t v) { return b & 4 ? v : v / 16 * 10 + v % 16; };
    CHECK(plain(month) >= 1 && plain(month) <= 12);
    CHECK(plain(day) >= 1 && plain(day) <= 31);
    CHECK(plain(hour) <= 23);
    CHECK_EQ(cmos(0xd) & 0x80, 0x80);
}

CASE(hpet_counts_and_compares) {
    uint64_t id = hpet(0);
    uint32_t period = uint32_t(id >> 32);
    if (!period || id == ~0ull) SKIP("no HPET");
    CHECK(period <= 100000000);
    hpet(0x10) = 0;
    hpet(0xf0) = 0;
    CHECK_EQ(hpet(0xf0), 0);
    hpet(0x10) = 1;
    CHECK(agrees([=] {
        uint64_t from = hpet(0xf0);
        uint32_t pm = pm_timer();
        wait_microseconds(10000);
        uint64_t femtoseconds = (hpet(0xf0) - from) * period;
        uint32_t ticks = (pm_timer() - pm) & 0xffffff;
        return near(femtoseconds / 1000000, uint64_t(ticks) * 1000 * 100 / 358, 15);
    }));
    // Timer 0, edge, through the I/O APIC pin 2.
    apic_enable();
    hits = 0;
    set_handler(0x5a, [](Frame*) {
        hits = hits + 1;
        apic_eoi();
    });
    unsigned pin = 0;
    uint32_t routes = uint32_t(hpet(0x100) >> 32);
    while (pin < 24 && !bit(routes, pin)) ++pin;
    if (pin < 24) {
        ioapic_route(pin, 0x5a);
        hpet(0x100) = uint64_t(4 | pin << 9);
        hpet(0x108) = hpet(0xf0) + 1000000000000 / period; // a millisecond
        CHECK(wait_for(hits, 1));
        hpet(0x100) = 0;
        ioapic_write(0x10 + pin * 2, 0x10000);
    }
    hpet(0x10) = 0;
    set_handler(0x5a, nullptr);
}

CASE(tsc_keeps_a_steady_rate) {
    CHECK(agrees([] {
        uint64_t rates[3];
        for (uint64_t& rate : rates) {
            uint32_t pm = pm_timer();
            uint64_t from = rdtsc();
            wait_microseconds(10000);
            uint64_t passed = rdtsc() - from;
            uint32_t ticks = (pm_timer() - pm) & 0xffffff;
            rate = passed / ticks;
        }
        return rates[0] > 10 && near(rates[1], rates[0], 25) && near(rates[2], rates[0], 25);
    }));
    uint64_t last = rdtsc();
    unsigned backwards = 0;
    for (unsigned n = 0; n < 10000; ++n) {
        uint64_t now = rdtsc();
        backwards += now < last;
        last = now;
    }
    CHECK_EQ(backwards, 0);
    uint64_t offset = rdtsc();
    wrmsr(0x10, 1000); // the TSC can be set
    CHECK(rdtsc() < offset);
}

CASE(test_device_latches) {
    outb(0xe0, 0x12);
    CHECK_EQ(inb(0xe0), 0x12);
    outw(0xe0, 0x3456);
    CHECK_EQ(inw(0xe0), 0x3456);
    outl(0xe0, 0x789abcde);
    CHECK_EQ(inl(0xe0), 0x789abcde);
    outb(0xe8, 0x5a);
    CHECK_EQ(inb(0xe8), 0x5a);
    auto scratch = reinterpret_cast<uint8_t volatile*>(0xff000000u);
    for (unsigned n = 0; n < 65536; n += 257) scratch[n] = uint8_t(n / 257);
    unsigned wrong = 0;
    for (unsigned n = 0; n < 65536; n += 257) wrong += scratch[n] != uint8_t(n / 257);
    CHECK_EQ(wrong, 0);
}
