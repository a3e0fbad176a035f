// Several CPUs (-smp 2 or 4): waking them, locked operations, messages between them, code changed by another CPU,
// translations dropped on another CPU, IPIs to each, all and others, NMI.
#include "runtime/smp.h"

#include "runtime/apic.h"

namespace {
constexpr word ROUNDS = 3000;
uint64_t volatile counter;
unsigned volatile ipis[MAX_CPUS], nmis, flag;
alignas(4096) uint8_t pages[3][4096];
alignas(4096) uint64_t tables[3][512];
extern "C" uint64_t guest_pml4[];
constexpr word WINDOW = 0x10000000000;

// How many CPUs run; a case that needs two fails and ends here when there is one.
#define NEED_TWO()                                                                                                     \
    unsigned n = start_cpus();                                                                                         \
    if (n < 2) {                                                                                                       \
        CHECK(n >= 2);                                                                                                 \
        return;                                                                                                        \
    }
template <class Work> void on_all_others(Work work, word argument = 0) {
    for (unsigned cpu = 1; cpu < start_cpus(); ++cpu) begin(cpu, work, argument ? argument : cpu);
}
void finish_all() {
    for (unsigned cpu = 1; cpu < start_cpus(); ++cpu) finish(cpu);
}
unsigned my_number() {
    uint32_t id = apic_read(APIC_ID) >> 24;
    for (unsigned cpu = 1; cpu < start_cpus(); ++cpu)
        if (apic_id_of(cpu) == id) return cpu;
    return 0;
}
} // namespace

CASE(every_cpu_wakes_with_its_own_id) {
    NEED_TWO();
    unsigned wanted = unsigned(command_number("cpus", 2));
    CHECK_EQ(n, wanted);
    for (unsigned a = 1; a < n; ++a) {
        CHECK(apic_id_of(a) != 0);
        for (unsigned b = 1; b < a; ++b) CHECK(apic_id_of(a) != apic_id_of(b));
    }
}

CASE(locked_additions_lose_nothing) {
    NEED_TWO();
    counter = 0;
    void (*add)(word) = [](word) {
        for (word i = 0; i < ROUNDS; ++i) ASM("lock incq %0" : "+m"(counter)::"cc");
    };
    on_all_others(add);
    add(0);
    finish_all();
    CHECK_EQ(counter, ROUNDS * n);
    counter = 0;
    void (*exchange)(word) = [](word) {
        for (word i = 0; i < ROUNDS; ++i) {
            uint64_t old = counter;
            bool done;
            do ASM("lock cmpxchgq %3, %1; setz %2" : "+a"(old), "+m"(counter), "=q"(done) : "r"(old + 1) : "cc");
            while (!done);
        }
    };
    on_all_others(exchange);
    exchange(0);
    finish_all();
    CHECK_EQ(counter, ROUNDS * n);
    counter = 0;
    void (*bits)(word) = [](word) {
        static unsigned volatile lock;
        for (word i = 0; i < ROUNDS / 4; ++i) {
            unsigned taken;
            do {
                taken = 1;
                ASM("xchgl %0, %1" : "+r"(taken), "+m"(lock)::"memory");
                if (taken) pause();
            } while (taken);
            counter = counter + 1;
            ASM("" ::: "memory");
            lock = 0;
        }
    };
    on_all_others(bits);
    bits(0);
    finish_all();
    CHECK_EQ(counter, ROUNDS / 4 * n);
    if (!bit(cpuid(1).c, 13)) return;
    alignas(16) static uint64_t pair[2];
    pair[0] = pair[1] = 0;
    void (*wide)(word) = [](word) {
        for (word i = 0; i < ROUNDS / 4; ++i) {
            uint64_t low = 0, high = 0;
            bool done;
            do
                ASM("lock cmpxchg16b %1; setz %2"
                    : "+a"(low), "+m"(pair), "=q"(done), "+d"(high)
                    : "b"(low + 1), "c"(high + 1)
                    : "cc");
            while (!done);
        }
    };
    on_all_others(wide);
    wide(0);
    finish_all();
    CHECK_EQ(pair[0], ROUNDS / 4 * n);
    CHECK_EQ(pair[1], ROUNDS / 4 * n);
}

CASE(a_message_is_seen_in_order) {
    NEED_TWO();
    static unsigned volatile data, ready;
    data = 0;
    ready = 0;
    begin(
        1,
        [](word) {
            for (unsigned i = 1; i <= 500; ++i) {
                while (ready != i) pause();
                CHECK_EQ(data, i * 7);
                ready = 0x80000000 | i;
            }
        },
        0);
    for (unsigned i = 1; i <= 500; ++i) {
        data = i * 7;
        ready = i;
        while (ready != (0x80000000 | i)) pause();
    }
    finish(1);
}

CASE(ipis_reach_whom_they_name) {
    NEED_TWO();
    flag = 0;
    for (unsigned i = 0; i < MAX_CPUS; ++i) ipis[i] = 0;
    set_handler(0x77, [](Frame*) {
        unsigned me = my_number();
        ipis[me] = ipis[me] + 1;
        apic_eoi();
    });
    on_all_others(+[](word) {
        while (!flag)
            ASM("sti; hlt; cli" ::: "memory"); // woken by each IPI, none of which comes between the look and the HLT
    });
    set_handler(0x76, [](Frame*) { apic_eoi(); });
    wait_microseconds(1000);
    apic_ipi(apic_id_of(1), 0x77);
    CHECK(wait_for(ipis[1], 1));
    apic_ipi(0, 0xc0077); // all but self
    for (unsigned cpu = 1; cpu < n; ++cpu) CHECK(wait_for(ipis[cpu], cpu == 1 ? 2 : 1));
    CHECK_EQ(ipis[0], 0);
    apic_ipi(0, 0x80077); // all with self
    CHECK(wait_for(ipis[0], 1));
    for (unsigned cpu = 1; cpu < n; ++cpu) CHECK(wait_for(ipis[cpu], cpu == 1 ? 3 : 2));
    flag = 1;
    apic_ipi(0, 0xc0076); // wakes those that halt; one that saw the flag first takes it whenever it enables interrupts
    finish_all();
    for (unsigned cpu = 1; cpu < n; ++cpu) CHECK_EQ(ipis[cpu], cpu == 1 ? 3 : 2);
    set_handler(0x77, nullptr);
}

CASE(an_nmi_wakes_a_halted_cpu) {
    NEED_TWO();
    nmis = 0;
    flag = 0;
    set_handler(NMI, [](Frame*) { nmis = nmis + 1; });
    begin(
        1,
        [](word) {
            ASM("cli; hlt" ::: "memory");
            flag = 1;
        },
        0);
    wait_microseconds(1000);
    // One NMI is enough for a CPU that halts already; on a busy host it may come before the HLT, and another one is
    // needed.
    for (unsigned tries = 0; tries < 1000 && !flag; ++tries) {
        apic_ipi(apic_id_of(1), 0x400);
        wait_microseconds(1000);
    }
    CHECK(flag);
    CHECK(nmis >= 1);
    finish(1); // the handler stays: the last NMI may still be on its way
}

CASE(code_changed_by_another_cpu) {
    NEED_TWO();
    static unsigned volatile turn, seen;
    turn = 0;
    uint8_t* at = pages[0];
    static uint8_t const code[] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(at, code, sizeof code);
    begin(
        1,
        [](word code_address) {
            for (unsigned i = 1; i <= 200; ++i) {
                while (turn != i) pause();
                cpuid(0); // serializes
                seen = reinterpret_cast<unsigned (*)()>(code_address)();
                turn = 0x80000000 | i;
            }
        },
        word(at));
    unsigned wrong = 0;
    for (unsigned i = 1; i <= 200; ++i) {
        memcpy(at + 1, &i, 4);
        turn = i;
        while (turn != (0x80000000 | i)) pause();
        wrong += seen != i;
    }
    finish(1);
    CHECK_EQ(wrong, 0);
}

CASE(tlb_shootdown) {
    NEED_TWO();
    memset(tables, 0, sizeof tables);
    guest_pml4[2] = word(tables[0]) | 7;
    tables[0][0] = word(tables[1]) | 7;
    tables[1][0] = word(tables[2]) | 7;
    tables[2][0] = word(pages[1]) | 7;
    write_cr3(read_cr3());
    pages[1][0] = 1;
    pages[2][0] = 2;
    static unsigned volatile round, done, wrong;
    round = 0;
    done = 0;
    wrong = 0;
    flag = 0;
    set_handler(0x78, [](Frame*) {
        invlpg(WINDOW);
        ASM("lock incl %0" : "+m"(done)::"cc");
        apic_eoi();
    });
    on_all_others(+[](word) {
        write_cr3(read_cr3());
        sti();
        while (!flag) {
            unsigned before = round;
            uint8_t value = *reinterpret_cast<uint8_t volatile*>(WINDOW);
            // Rounds end only after every CPU dropped its translation: an even round shows page 1, an odd one page 2.
            if (!(before & 1) && before == round && value != 1 + (before >> 1) % 2) wrong = wrong + 1;
        }
        cli();
    });
    for (unsigned i = 1; i <= 100; ++i) {
        round = i * 2 - 1; // in between: either value
        tables[2][0] = word(pages[1 + i % 2]) | 7;
        ASM("" ::: "memory");
        done = 0;
        apic_ipi(0, 0xc0078);
        while (done < n - 1) pause();
        round = i * 2;
        for (unsigned spin = 0; spin < 200; ++spin) pause();
    }
    flag = 1;
    finish_all();
    CHECK_EQ(wrong, 0);
    set_handler(0x78, nullptr);
}

CASE(init_and_sipi_restart_a_cpu) {
    NEED_TWO();
    // A CPU that halts with interrupts off comes back by INIT, SIPI; it takes the next number, so this case is the
    // last.
    CHECK_EQ(rdmsr(MSR_APIC_BASE) & 0x100, 0x100); // the boot CPU
    static unsigned volatile is_boot;
    is_boot = 2;
    begin(
        1, [](word) { is_boot = unsigned(rdmsr(MSR_APIC_BASE) >> 8 & 1); }, 0);
    finish(1);
    CHECK_EQ(is_boot, 0);
}
