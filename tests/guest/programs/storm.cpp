// Several CPUs at once on the same code, the same translations and the same words, for seconds=N (of the time stamp
// counter at tsc_mhz=N) with seed=N: what holds on real hardware must hold at every step.
#include "runtime/apic.h"
#include "runtime/smp.h"

namespace {
constexpr unsigned SLOTS = 16, WINDOWS = 8, SHOOTDOWN = 0x79;
constexpr word WINDOW = 0x20000000000;
extern "C" uint64_t guest_pml4[];

struct alignas(64) Cpu {
    uint64_t random;
    uint64_t sums, wides, splits, calls, rewrites, shootdowns, wrong_pair, wrong_locked, wrong_unlocked, wrong_own,
        wrong_page, wrong_mark;
};
Cpu cpus[MAX_CPUS];
uint64_t deadline;
unsigned volatile count, busy;

struct alignas(64) Shared {
    uint64_t volatile added, exchanged;
    alignas(16) uint64_t volatile pair[2];
};
Shared shared;
alignas(64) uint8_t split_line[128]; // a counter across two cache lines lies in it
uint64_t volatile* split() { return reinterpret_cast<uint64_t volatile*>(split_line + 60); }

uint64_t random_of(Cpu& c) {
    c.random ^= c.random << 13;
    c.random ^= c.random >> 7;
    c.random ^= c.random << 17;
    return c.random;
}

struct Lock {
    unsigned volatile taken;
    void lock() {
        unsigned was;
        do {
            was = 1;
            ASM("xchgl %0, %1" : "+r"(was), "+m"(taken)::"memory");
            if (was) pause();
        } while (was);
    }
    void unlock() {
        ASM("" ::: "memory");
        taken = 0;
    }
};

// --- atomics: nothing is lost
void atomics(Cpu& c) {
    switch (random_of(c) >> 20 & 3) {
    case 0:
        ASM("lock incq %0" : "+m"(shared.added)::"cc");
        ++c.sums;
        break;
    case 1: {
        uint64_t old = shared.exchanged;
        bool done;
        do
            ASM("lock cmpxchgq %3, %1; setz %2"
                : "+a"(old), "+m"(shared.exchanged), "=q"(done)
                : "r"(old + 1)
                : "cc", "memory");
        while (!done);
        ++c.sums;
        break;
    }
    case 2: {
        uint64_t low = 0, high = 0;
        bool done;
        do
            ASM("lock cmpxchg16b %1; setz %2"
                : "+a"(low), "+m"(shared.pair), "=q"(done), "+d"(high)
                : "b"(low + 1), "c"(high + 1)
                : "cc", "memory");
        while (!done);
        if (low != high) ++c.wrong_pair;
        ++c.wides;
        break;
    }
    default: {
        if (random_of(c) >> 20 & 15) break; // rarely: slow on every machine
        uint64_t one = 1;
        ASM("lock xaddq %0, %1" : "+r"(one), "+m"(*split())::"cc", "memory");
        ++c.splits;
    }
    }
}

// --- code: MOV EAX, version; RET in slots close to each other, the version aligned
alignas(4096) uint8_t code_pages[2][4096];
alignas(4096) uint8_t own_code[MAX_CPUS][4096];
struct Slot {
    Lock lock;
    unsigned volatile version;
};
Slot slots[SLOTS];
uint8_t* code_at(unsigned slot) { return code_pages[slot & 1] + 0xf80 + (slot >> 1) * 16 + 3; }
void put_code(uint8_t* at, unsigned version) {
    at[0] = 0xb8;
    *reinterpret_cast<unsigned volatile*>(at + 1) = version;
    at[5] = 0xc3;
}
unsigned call(uint8_t* at) { return reinterpret_cast<unsigned (*)()>(at)(); }

void code(Cpu& c) {
    uint64_t const r = random_of(c);
    unsigned const number = r >> 16 & (SLOTS - 1);
    Slot& slot = slots[number];
    uint8_t* at = code_at(number);
    switch (r >> 24 & 3) {
    case 0:
        slot.lock.lock();
        *reinterpret_cast<unsigned volatile*>(at + 1) = slot.version + 1;
        slot.version = slot.version + 1;
        slot.lock.unlock();
        ++c.rewrites;
        break;
    case 1: // nobody changes it meanwhile
        slot.lock.lock();
        cpuid(0);
        if (call(at) != slot.version) ++c.wrong_locked;
        slot.lock.unlock();
        ++c.calls;
        break;
    case 2: { // somebody may: not older than what was published before, not newer than what is being written
        unsigned const before = slot.version;
        cpuid(0);
        unsigned const seen = call(at), after = slot.version;
        if (int(seen - before) < 0 || int(after + 1 - seen) < 0) ++c.wrong_unlocked;
        ++c.calls;
        break;
    }
    default: { // one's own, called at once
        uint8_t* mine = own_code[&c - cpus] + (r >> 32 & 0x7f8) + 3;
        put_code(mine, unsigned(r >> 8));
        if (call(mine) != unsigned(r >> 8)) ++c.wrong_own;
        ++c.rewrites;
    }
    }
}

// --- translations: each window shows one of two pages, by the parity of its generation's half
alignas(4096) uint8_t data_pages[WINDOWS][2][4096];
alignas(4096) uint64_t tables[3][512];
unsigned volatile generation[WINDOWS]; // odd: in between
unsigned volatile shot, acknowledged;
Lock shooting;
word window(unsigned number) { return WINDOW + number * 4096; }

void shoot_down(Cpu& c, unsigned number) {
    shooting.lock();
    unsigned const next = generation[number] + 1;
    generation[number] = next;
    ASM("mfence" ::: "memory");
    tables[2][number] = word(data_pages[number][(next + 1) / 2 & 1]) | 7;
    invlpg(window(number));
    shot = number;
    acknowledged = 0;
    apic_ipi(0, 0xc0000 | SHOOTDOWN);
    while (acknowledged < count - 1) pause();
    generation[number] = next + 1;
    shooting.unlock();
    ++c.shootdowns;
}

void translations(Cpu& c) {
    uint64_t const r = random_of(c);
    unsigned const number = r >> 16 & (WINDOWS - 1), me = unsigned(&c - cpus);
    if (!(r >> 32 & 63)) return shoot_down(c, number);
    if (!(r >> 40 & 255)) write_cr3(read_cr3());
    unsigned const before = generation[number];
    uint8_t volatile* at = reinterpret_cast<uint8_t volatile*>(window(number));
    uint8_t const seen = at[0], mark = uint8_t(r >> 48);
    at[64 + me] = mark;
    ASM("mfence" ::: "memory");
    unsigned const page = before / 2 & 1;
    uint8_t const marked = const_cast<uint8_t volatile*>(data_pages[number][page])[64 + me];
    if (before & 1 || before != generation[number]) return;
    if (seen != page + 1) ++c.wrong_page;
    if (marked != mark) ++c.wrong_mark;
}

void work(word number) {
    Cpu& c = cpus[number];
    write_cr3(read_cr3());
    sti();
    while (rdtsc() < deadline)
        for (unsigned i = 0; i < 100; ++i) {
            atomics(c);
            code(c);
            translations(c);
        }
    ASM("lock decl %0" : "+m"(busy)::"cc");
    while (busy) pause(); // the others may still wait for this CPU's acknowledgement
}

void prepare(unsigned n) {
    uint64_t const seed = command_number("seed", 1);
    for (unsigned i = 0; i < n; ++i) cpus[i].random = (seed + i + 1) * 0x9e3779b97f4a7c15;
    for (unsigned i = 0; i < SLOTS; ++i) put_code(code_at(i), 0);
    guest_pml4[4] = word(tables[0]) | 7;
    tables[0][0] = word(tables[1]) | 7;
    tables[1][0] = word(tables[2]) | 7;
    for (unsigned i = 0; i < WINDOWS; ++i) {
        tables[2][i] = word(data_pages[i][0]) | 7;
        data_pages[i][0][0] = 1;
        data_pages[i][1][0] = 2;
    }
    set_handler(SHOOTDOWN, [](Frame*) {
        invlpg(window(shot));
        ASM("lock incl %0" : "+m"(acknowledged)::"cc");
        apic_eoi();
    });
    pic_init(0x20);
}
} // namespace

CASE(everything_at_once) {
    unsigned const n = start_cpus();
    CHECK(n >= 2);
    if (n < 2) return;
    count = n;
    busy = n;
    prepare(n);
    deadline = rdtsc() + command_number("seconds", 2) * command_number("tsc_mhz", 1000) * 1000000;
    for (unsigned i = 1; i < n; ++i) begin(i, work, i);
    work(0);
    for (unsigned i = 1; i < n; ++i) finish(i);
    cli();
    Cpu all{};
    for (Cpu const& c : cpus) {
        all.sums += c.sums, all.wides += c.wides, all.splits += c.splits, all.calls += c.calls;
        all.rewrites += c.rewrites, all.shootdowns += c.shootdowns;
        all.wrong_pair += c.wrong_pair, all.wrong_locked += c.wrong_locked, all.wrong_unlocked += c.wrong_unlocked;
        all.wrong_own += c.wrong_own, all.wrong_page += c.wrong_page, all.wrong_mark += c.wrong_mark;
    }
    CHECK_EQ(shared.added + shared.exchanged, all.sums);
    CHECK_EQ(shared.pair[0], all.wides);
    CHECK_EQ(shared.pair[1], all.wides);
    CHECK_EQ(*split(), all.splits);
    CHECK_EQ(all.wrong_pair, 0);
    CHECK_EQ(all.wrong_locked, 0);
    CHECK_EQ(all.wrong_unlocked, 0);
    CHECK_EQ(all.wrong_own, 0);
    CHECK_EQ(all.wrong_page, 0);
    CHECK_EQ(all.wrong_mark, 0);
    CHECK(all.shootdowns > 0);
    print("%lu atomics, %lu calls, %lu rewrites, %lu shootdowns\n", all.sums + all.wides + all.splits, all.calls,
          all.rewrites, all.shootdowns);
}
