// Debug registers and single stepping: what traps, what faults, what DR6 says.
#include "runtime/guest.h"

namespace {
unsigned volatile hits;
word hit_ip[32], hit_dr6[32];
void record(Frame* f) {
    if (hits < 32) {
        hit_ip[hits] = f->ip;
        hit_dr6[hits] = read_dr6();
    }
    hits = hits + 1;
    write_dr6(0xffff0ff0);
    if (hits > 30) f->flags &= ~FLAG_TF;
}
void start() {
    hits = 0;
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    set_handler(DB, record);
}
void stop() {
    write_dr7(0x400);
    set_handler(DB, nullptr);
}
uint32_t volatile watched[4] __attribute__((aligned(16)));
} // namespace

#ifdef __x86_64__
#define LABEL(name)                                                                                                    \
    ({                                                                                                                 \
        word at_;                                                                                                      \
        ASM("lea " #name "(%%rip), %0" : "=r"(at_));                                                                   \
        at_;                                                                                                           \
    })
#define TF_ON "pushfq; orq $0x100, (%%rsp); popfq\n"
#define TF_OFF "pushfq; andq $~0x100, (%%rsp); popfq\n"
#else
#define LABEL(name)                                                                                                    \
    ({                                                                                                                 \
        word at_;                                                                                                      \
        ASM("mov $" #name ", %0" : "=r"(at_));                                                                         \
        at_;                                                                                                           \
    })
#define TF_ON "pushfl; orl $0x100, (%%esp); popfl\n"
#define TF_OFF "pushfl; andl $~0x100, (%%esp); popfl\n"
#endif

CASE(single_step_traps_after_each_instruction) {
    start();
    ASM(TF_ON ".globl ss_0, ss_1, ss_2\nss_0: nop; ss_1: nop; ss_2: nop\n" TF_OFF ::: "memory", "cc");
    stop();
    CHECK_EQ(hit_ip[0], LABEL(ss_1)); // the POPF that sets TF does not trap itself
    CHECK_EQ(hit_ip[1], LABEL(ss_2));
    CHECK_EQ(hit_dr6[0], 0xffff4ff0);
    CHECK_EQ(hits, 6); // nop nop nop pushf and popf
}

CASE(single_step_over_string_and_branch) {
    static uint8_t from[4] = {1, 2, 3, 4}, to[4];
    void *source = from, *target = to;
    word n = 3;
    start();
    ASM(TF_ON ".globl ss_3, ss_4, ss_5, ss_6\nss_3: rep movsb\nss_4: jmp ss_5\nnop\nss_5: xor %%eax, %%eax\nss_6: "
              "nop\n" TF_OFF
        : "+D"(target), "+S"(source), "+c"(n)::"memory", "cc", "eax");
    stop();
    CHECK_EQ(hit_ip[0], LABEL(ss_3)); // each iteration of a repeated instruction traps, the last one behind it
    CHECK_EQ(hit_ip[1], LABEL(ss_3));
    CHECK_EQ(hit_ip[2], LABEL(ss_4));
    CHECK_EQ(hit_ip[3], LABEL(ss_5));
    CHECK_EQ(hit_ip[4], LABEL(ss_6));
    CHECK_EQ(to[2], 3);
}

CASE(mov_ss_delays_the_single_step) {
    start();
    ASM("mov %%ss, %%eax\n" TF_ON ".globl ss_7, ss_8\nmov %%eax, %%ss\nss_7: nop\nss_8: nop\n" TF_OFF ::
            : "memory", "cc", "eax");
    stop();
    CHECK_EQ(hit_ip[0], LABEL(ss_8)); // the trap of MOV SS is lost, not postponed
}

CASE(int_clears_tf_and_icebp_is_a_debug_trap) {
    start();
    ASM(".byte 0xf1\n.globl ss_9\nss_9: nop" ::: "memory");
    stop();
    CHECK_EQ(hits, 1);
    CHECK_EQ(hit_ip[0], LABEL(ss_9));
    CHECK_EQ(hit_dr6[0], 0xffff0ff0); // INT1 sets no bit
}

CASE(instruction_breakpoint_is_a_fault_and_rf_passes_it) {
    start();
    write_dr0(LABEL(ib_0));
    write_dr7(0x401); // L0, execute
    set_handler(DB, [](Frame* f) {
        record(f);
        f->flags |= FLAG_RF;
    });
    ASM("nop\n.globl ib_0, ib_1\nib_0: nop\nib_1: nop");
    CHECK_EQ(hits, 1);
    CHECK_EQ(hit_ip[0], LABEL(ib_0));
    CHECK_EQ(hit_dr6[0], 0xffff0ff1);
    hits = 0;
    write_dr7(0x402); // G0 is as good
    ASM("jmp ib_0x\nib_0x: nop");
    write_dr0(LABEL(ib_2));
    ASM(".globl ib_2\nib_2: nop");
    CHECK_EQ(hits, 1);
    write_dr7(0x400);
    ASM(".globl ib_3\nib_3: nop");
    CHECK_EQ(hits, 1);
    stop();
}

CASE(data_breakpoints_trap_after_the_access) {
    start();
    write_dr1(word(&watched[1]));
    write_dr7(0x400 | 4 | 0xdu << 20); // L1, write, 4 bytes
    ASM("movl $1, %0\n.globl db_0\ndb_0: nop" : "=m"(watched[1]));
    CHECK_EQ(hits, 1);
    CHECK_EQ(hit_ip[0], LABEL(db_0));
    CHECK_EQ(hit_dr6[0], 0xffff0ff2);
    uint32_t value = watched[1];
    CHECK_EQ(value, 1);
    CHECK_EQ(hits, 1); // reads do not count
    watched[0] = 2;
    watched[2] = 3;
    CHECK_EQ(hits, 1);
    *(reinterpret_cast<uint8_t volatile*>(watched) + 7) = 4; // its last byte
    CHECK_EQ(hits, 2);
    ASM("movw $1, %0" : "=m"(*(reinterpret_cast<uint8_t volatile*>(watched) + 3)));
    CHECK_EQ(hits, 3);                 // overlapping from below
    write_dr7(0x400 | 4 | 0xfu << 20); // read or write
    value = watched[1];
    CHECK_EQ(hits, 4);
    (void)value;
    stop();
}

CASE(a_pushed_word_hits_a_data_breakpoint) {
    start();
    word volatile slot;
    word at;
#ifdef __x86_64__
    ASM("lea -8(%%rsp), %0" : "=r"(at));
#else
    ASM("lea -4(%%esp), %0" : "=r"(at));
#endif
    (void)slot;
    write_dr2(at);
    write_dr7(0x400 | 0x10 | 0xdu << 24);
    ASM("push %0; pop %0" ::"r"(at) : "memory");
    CHECK_EQ(hits, 1);
    CHECK_EQ(hit_dr6[0] & 0xf, 4);
    stop();
}

CASE(io_breakpoints_need_de) {
    start();
    write_cr4(read_cr4() | CR4_DE);
    write_dr3(0x80);
    write_dr7(0x400 | 0x40 | 2u << 28); // L3, I/O, 1 byte
    ASM("mov $0, %%eax; out %%al, $0x80\n.globl iob_0\niob_0: nop" ::: "eax");
    stop();
    CHECK_EQ(hits, 1);
    CHECK_EQ(hit_ip[0], LABEL(iob_0));
    CHECK_EQ(hit_dr6[0] & 0xf, 8);
    CHECK_EQ(attempt([] { ASM(".byte 0x0f, 0x21, 0xe0" ::: "eax"); }).vector, UD);
    write_cr4(read_cr4() & ~CR4_DE);
    CHECK_EQ(attempt([] { ASM(".byte 0x0f, 0x21, 0xe0" ::: "eax"); }).vector, NONE);
}

CASE(general_detect_faults_on_debug_register_access) {
    start();
    set_handler(DB, nullptr);
    write_dr7(0x2400);
    Fault f = attempt([] { write_dr0(0); });
    CHECK_EQ(f.vector, DB);
    CHECK_EQ(f.dr6 & 0x2000, 0x2000);
    CHECK_EQ(read_dr7() & 0x2000, 0); // delivering #DB clears GD
    stop();
}

CASE(a_mov_ss_holds_a_data_breakpoint_back) {
    start();
    static uint32_t selector;
    ASM("mov %%ss, %0" : "=r"(selector));
    write_dr0(word(&selector));
    write_dr7(0x400 | 1 | 0xfu << 16);
    ASM("mov %0, %%ss\n.globl msb_0, msb_1\nmsb_0: nop\nmsb_1: nop" ::"m"(selector));
    stop();
    CHECK_EQ(hits, 1);
    CHECK_EQ(hit_ip[0], LABEL(msb_1)); // delivered after the next instruction
}

CASE(dr6_and_dr7_fixed_bits) {
    write_dr7(0);
    CHECK_EQ(read_dr7(), 0x400);
    write_dr6(0);
    CHECK_EQ(read_dr6() & 0xfffe1ff0, 0xfffe0ff0);
    write_dr6(0xffff0ff0);
    write_dr7(0x400);
#ifdef __x86_64__
    CHECK_EQ(attempt([] { write_dr7(word(1) << 32); }).vector, GP);
    CHECK_EQ(attempt([] { write_dr6(word(1) << 32); }).vector, GP);
#endif
}
