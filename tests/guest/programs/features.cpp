// CPUID and what it promises: absent features raise their exception, present ones work; LOCK, alignment check,
// CMPXCHG16B, MONITOR, XSAVE.
#include "runtime/guest.h"

namespace {
alignas(64) uint8_t area[4096];

} // namespace

CASE(lock_is_undefined_where_it_makes_no_sense) {
    static uint32_t memory;
    CHECK_EQ(attempt([] { ASM("lock addl $1, %0" : "+m"(memory)); }).vector, NONE);
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0x01, 0xc0" ::: "eax"); }).vector, UD);      // lock add %eax, %eax
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0x8b, 0x00" ::"a"(&memory)); }).vector, UD); // lock mov
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0x39, 0x00" ::"a"(&memory)); }).vector, UD); // lock cmp
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0x90"); }).vector, UD);                      // lock nop
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0x0f, 0xa3, 0x08" ::"a"(&memory), "c"(0)); }).vector, UD);   // lock bt
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0x0f, 0xab, 0x08" ::"a"(&memory), "c"(0)); }).vector, NONE); // lock bts
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0xf6, 0x18" ::"a"(&memory)); }).vector, NONE);               // lock neg
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0xd1, 0x20" ::"a"(&memory)); }).vector, UD);                 // lock shl
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0x03, 0x08" ::"a"(&memory) : "ecx"); }).vector, UD); // lock add mem to reg
    CHECK_EQ(attempt([] { ASM(".byte 0xf0, 0xa4" ::"S"(area), "D"(area + 8)); }).vector, UD);   // lock movsb
}

CASE(alignment_check_only_in_ring_3) {
    write_cr0(read_cr0() | CR0_AM);
    word (*misaligned)(word) = [](word a) -> word {
        ASM("mov 1(%0), %%eax" ::"r"(a) : "eax");
        return 0;
    };
    Fault f = run_user(misaligned, word(user(area)), 2 | FLAG_AC);
    CHECK_EQ(f.vector, AC);
    CHECK_EQ(f.error, 0);
    CHECK_EQ(run_user(misaligned, word(user(area)), 2).vector, USER_RETURN);
    CHECK_EQ(run_user(
                 [](word a) -> word {
                     ASM("mov (%0), %%eax; movb 1(%0), %%al; movw 2(%0), %%ax; mov 8(%0), %%rax" ::"r"(a) : "rax");
                     return 0;
                 },
                 word(user(area)), 2 | FLAG_AC)
                 .vector,
             USER_RETURN);
    CHECK_EQ(attempt([] { ASM("pushfq; orl $0x40000, (%%rsp); popfq; mov 1(%0), %%eax" ::"r"(area)
                              : "eax"); }).vector,
             NONE);
    write_cr0(read_cr0() & ~CR0_AM);
    CHECK_EQ(run_user(misaligned, word(user(area)), 2 | FLAG_AC).vector, USER_RETURN);
}

CASE(movaps_needs_alignment) {
    Fault f = attempt([] { ASM("movaps 8(%0), %%xmm0" ::"r"(area)); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    CHECK_EQ(attempt([] { ASM("paddb 1(%0), %%xmm0" ::"r"(area)); }).vector, GP);
    CHECK_EQ(attempt([] { ASM("fxsave 8(%0)" ::"r"(area)); }).vector, GP);
    CHECK_EQ(attempt([] { ASM("lddqu 1(%0), %%xmm0" ::"r"(area)); }).vector, NONE);
}

CASE(cmpxchg16b) {
    if (!bit(cpuid(1).c, 13)) SKIP("no CX16");
    auto pair = reinterpret_cast<uint64_t*>(area);
    pair[0] = 1;
    pair[1] = 2;
    uint64_t low = 1, high = 2;
    bool equal;
    ASM("lock cmpxchg16b (%3); sete %2" : "+a"(low), "+d"(high), "=q"(equal) : "r"(pair), "b"(3l), "c"(4l) : "memory");
    CHECK(equal);
    CHECK_EQ(pair[0], 3);
    CHECK_EQ(pair[1], 4);
    ASM("lock cmpxchg16b (%3); sete %2" : "+a"(low), "+d"(high), "=q"(equal) : "r"(pair), "b"(5l), "c"(6l) : "memory");
    CHECK(!equal);
    CHECK_EQ(low, 3);
    CHECK_EQ(high, 4);
    Fault f = attempt([] { ASM("cmpxchg16b 8(%0)" ::"r"(area) : "rax", "rdx", "memory"); });
    CHECK_EQ(f.vector, GP);
}

CASE(monitor_and_mwait) {
    if (!bit(cpuid(1).c, 3)) {
        CHECK_EQ(attempt([] { ASM("monitor" ::"a"(area), "c"(0), "d"(0)); }).vector, UD);
        SKIP("no MONITOR: it raises #UD");
    }
    CHECK_EQ(attempt([] { ASM("monitor" ::"a"(area), "c"(0), "d"(0)); }).vector, NONE);
    CHECK_EQ(attempt([] { ASM("monitor" ::"a"(area), "c"(1), "d"(0)); }).vector, GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("monitor" ::"a"(0), "c"(0), "d"(0));
                 return 0;
             }).vector,
             UD);
}

CASE(absent_features_raise_undefined) {
    Cpuid one = cpuid(1), seven = cpuid(7), extended = cpuid(0x80000001);
    unsigned max_leaf = cpuid(0).a;
    if (max_leaf < 7) seven = {};
    if (!bit(one.c, 30))
        CHECK_EQ(attempt([] { ASM("rdrand %%eax" ::: "eax", "cc"); }).vector, UD);
    else
        CHECK_EQ(attempt([] { ASM("rdrand %%eax" ::: "eax", "cc"); }).vector, NONE);
    CHECK_EQ(attempt([] { ASM("rdseed %%eax" ::: "eax", "cc"); }).vector, bit(seven.b, 18) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("rdtscp" ::: "eax", "ecx", "edx"); }).vector, bit(extended.d, 27) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("rdpid %%rax" ::: "rax"); }).vector, bit(seven.c, 22) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("movbe %0, %%eax" ::"m"(area) : "eax"); }).vector, bit(one.c, 22) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("popcnt %%eax, %%eax" ::: "eax"); }).vector, bit(one.c, 23) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("crc32b %%al, %%eax" ::: "eax"); }).vector, bit(one.c, 20) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("clflushopt %0" : "+m"(area)); }).vector, bit(seven.b, 23) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("aesenc %xmm0, %xmm0"); }).vector, bit(one.c, 25) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("pclmulqdq $0, %xmm0, %xmm0"); }).vector, bit(one.c, 1) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("sha256msg1 %xmm0, %xmm0"); }).vector, bit(seven.b, 29) ? NONE : unsigned(UD));
    CHECK_EQ(attempt([] { ASM("vmcall" ::: "rax"); }).vector, UD);
    CHECK_EQ(attempt([] { ASM("vmread %rax, %rax"); }).vector, UD);
    if (!bit(one.c, 26)) CHECK_EQ(attempt([] { ASM("xgetbv" ::: "eax", "edx"); }).vector, UD);
    if (!bit(seven.b, 5)) CHECK_EQ(attempt([] { ASM("vpaddb %ymm0, %ymm0, %ymm0"); }).vector, UD);
    // VEX without OSXSAVE and XCR0 is undefined whatever the CPU has
    CHECK_EQ(attempt([] { ASM("vpaddb %xmm0, %xmm0, %xmm0"); }).vector, UD);
    CHECK_EQ(attempt([] {
                 ASM("andn %%eax, %%eax, %%eax" ::: "eax");
             }).vector,
             bit(seven.b, 3) ? NONE : unsigned(UD)); // BMI needs no XCR0
}

CASE(cr4_bits_of_absent_features_are_reserved) {
    Cpuid one = cpuid(1), seven = cpuid(7);
    struct {
        unsigned cr4_bit;
        bool present;
    } const rows[] = {{13, bit(one.c, 5)},
                      {14, bit(one.c, 6)},
                      {16, bit(seven.b, 0)},
                      {17, bit(one.c, 17)},
                      {18, bit(one.c, 26)},
                      {20, bit(seven.b, 7)},
                      {21, bit(seven.b, 20)},
                      {22, bit(seven.c, 3)},
                      {11, bit(seven.c, 2)},
                      {12, bit(seven.c, 16)},
                      {23, false}};
    for (auto const& row : rows) {
        if (row.cr4_bit == 12) continue; // LA57 cannot change in long mode
        word old = read_cr4(), with = old | word(1) << row.cr4_bit;
        if (row.cr4_bit == 23 && bit(seven.c, 7)) continue;
        CHECK_EQ(attempt([=] { write_cr4(with); }).vector, row.present ? NONE : unsigned(GP));
        write_cr4(old);
    }
}

CASE(unknown_msrs_raise_gp) {
    CHECK_EQ(attempt([] { rdmsr(0x12345678); }).vector, GP);
    CHECK_EQ(attempt([] { wrmsr(0x12345678, 0); }).vector, GP);
    CHECK_EQ(attempt([] { rdmsr(0x1b); }).vector, NONE);
    CHECK_EQ(attempt([] { rdmsr(0x277); }).vector, NONE);
    CHECK_EQ(attempt([] { wrmsr(0x277, 2); }).vector, GP); // PAT memory type 2 is reserved
    CHECK_EQ(attempt([] { wrmsr(0xfe, 0); }).vector, GP);  // MTRRcap is read-only
}

CASE(tsc_disable_and_rdpmc) {
    write_cr4(read_cr4() | CR4_TSD);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("rdtsc" ::: "eax", "edx");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(attempt([] { rdtsc(); }).vector, NONE);
    write_cr4(read_cr4() & ~CR4_TSD);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("rdtsc" ::: "eax", "edx");
                 return 0;
             }).vector,
             USER_RETURN);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("rdpmc" ::: "eax", "edx");
                 return 0;
             }).vector,
             GP);
}

CASE(umip_hides_the_tables) {
    if (!bit(cpuid(7).c, 2)) SKIP("no UMIP");
    word (*reads)(word) = [](word) -> word {
        TablePointer p;
        ASM("sgdt %0" : "=m"(p));
        return 0;
    };
    CHECK_EQ(run_user(reads).vector, USER_RETURN);
    write_cr4(read_cr4() | CR4_UMIP);
    CHECK_EQ(run_user(reads).vector, GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("smsw %%eax" ::: "eax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("str %%eax" ::: "eax");
                 return 0;
             }).vector,
             GP);
    TablePointer p;
    ASM("sgdt %0" : "=m"(p));
    CHECK_EQ(p.base, word(gdt()));
    write_cr4(read_cr4() & ~CR4_UMIP);
}

CASE(cpuid_leaves_agree) {
    Cpuid zero = cpuid(0), one = cpuid(1);
    CHECK(zero.a >= 1);
    CHECK_EQ(bit(one.c, 27), false); // OSXSAVE follows CR4
    if (bit(one.c, 26)) {
        write_cr4(read_cr4() | CR4_OSXSAVE);
        CHECK(bit(cpuid(1).c, 27));
        write_cr4(read_cr4() & ~CR4_OSXSAVE);
    }
    Cpuid beyond = cpuid(0x40001234), last = cpuid(zero.a + 0x100);
    (void)beyond;
    (void)last;
    CHECK(cpuid(0x80000000).a >= 0x80000008);
    CHECK(bit(cpuid(0x80000001).d, 29));
    CHECK_EQ(cpuid(1).b >> 24, 0); // the boot CPU's APIC id
    CHECK((cpuid(0x80000008).a & 0xff) >= 36);
    CHECK_EQ(cpuid(0x80000008).a >> 8 & 0xff, 48);
}

CASE(xsave_family) {
    if (!bit(cpuid(1).c, 26)) SKIP("no XSAVE");
    CHECK_EQ(attempt([] { ASM("xsave %0" : "+m"(area) : "a"(3), "d"(0)); }).vector, UD);
    CHECK_EQ(attempt([] { ASM("xgetbv" ::"c"(0) : "eax", "edx"); }).vector, UD);
    write_cr4(read_cr4() | CR4_OSXSAVE);
    uint32_t low, high, mask = cpuid(0xd).a;
    ASM("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    CHECK_EQ(low, 1);
    CHECK_EQ(mask & 3, 3);
    CHECK_EQ(attempt([] { ASM("xsetbv" ::"c"(0), "a"(2), "d"(0)); }).vector, GP); // x87 must stay
    CHECK_EQ(attempt([] { ASM("xsetbv" ::"c"(0), "a"(5), "d"(0)); }).vector, GP); // AVX without SSE
    CHECK_EQ(attempt([] { ASM("xsetbv" ::"c"(1), "a"(3), "d"(0)); }).vector, GP);
    CHECK_EQ(attempt([] { ASM("xsetbv" ::"c"(0), "a"(3), "d"(0x80000000)); }).vector, GP);
    CHECK_EQ(attempt([] { ASM("xsetbv" ::"c"(0), "a"(3), "d"(0)); }).vector, NONE);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("xsetbv" ::"c"(0), "a"(3), "d"(0));
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(cpuid(0xd).b, 576); // header and legacy area
    memset(area, 0xaa, sizeof area);
    memset(area + 512, 0, 64);
    ASM("fninit; pcmpeqb %%xmm3, %%xmm3; xsave %0; pxor %%xmm3, %%xmm3; xrstor %0; pmovmskb %%xmm3, %%eax"
        : "+m"(area)
        : "a"(3), "d"(0)
        : "memory");
    CHECK_EQ(area[512], 2 | (area[512] & 1)); // SSE in use; x87 may be in its initial state
    CHECK_EQ(area[160 + 16 * 3], 0xff);
    ASM("mov $3, %%eax; xor %%edx, %%edx; xrstor %1; pmovmskb %%xmm3, %0" : "=r"(low) : "m"(area) : "eax", "edx");
    CHECK_EQ(low, 0xffff);
    area[512] = 0; // XSTATE_BV clear: initial state
    ASM("mov $3, %%eax; xor %%edx, %%edx; xrstor %1; pmovmskb %%xmm3, %0" : "=r"(low) : "m"(area) : "eax", "edx");
    CHECK_EQ(low, 0);
    area[512] = 4; // a component that is not enabled
    CHECK_EQ(attempt([] { ASM("xrstor %0" ::"m"(area), "a"(3), "d"(0)); }).vector, GP);
    area[512] = 3;
    area[520] = 1; // XCOMP_BV in a standard image without compaction support or bit 63
    CHECK_EQ(attempt([] { ASM("xrstor %0" ::"m"(area), "a"(3), "d"(0)); }).vector, GP);
    area[520] = 0;
    area[24 + 2] = 0xff; // reserved MXCSR bits
    area[24 + 3] = 0xff;
    CHECK_EQ(attempt([] { ASM("xrstor %0" ::"m"(area), "a"(3), "d"(0)); }).vector, GP);
    CHECK_EQ(attempt([] { ASM("xsave %0" : "+m"(area[16]) : "a"(3), "d"(0)); }).vector, GP);
    if (bit(cpuid(0xd, 1).a, 0))
        CHECK_EQ(attempt([] { ASM("xsaveopt %0" : "+m"(area) : "a"(3), "d"(0)); }).vector, NONE);
    if (bit(cpuid(0xd, 1).a, 1)) {
        CHECK_EQ(attempt([] { ASM("xsavec %0" : "+m"(area) : "a"(3), "d"(0)); }).vector, NONE);
        CHECK_EQ(area[527] & 0x80, 0x80);
        CHECK_EQ(attempt([] { ASM("xrstor %0" ::"m"(area), "a"(3), "d"(0)); }).vector, NONE);
    } else {
        CHECK_EQ(attempt([] { ASM("xsavec %0" : "+m"(area) : "a"(3), "d"(0)); }).vector, UD);
    }

    write_cr0(read_cr0() | CR0_TS);
    CHECK_EQ(attempt([] { ASM("xsave %0" : "+m"(area) : "a"(3), "d"(0)); }).vector, NM);
    ASM("clts");
    write_cr4(read_cr4() & ~CR4_OSXSAVE);
}

CASE(x87_exceptions_with_ne) {
    static uint16_t const unmasked = 0x37b; // divide by zero unmasked
    Fault f = attempt([] {
        ASM("fninit; fldcw %0; fldz; fld1; fdiv %%st(1), %%st; nop; .globl x87_wait\nx87_wait: fwait" ::"m"(unmasked));
    });
    word at;
    ASM("lea x87_wait(%%rip), %0" : "=r"(at));
    CHECK_EQ(f.vector, MF);
    CHECK_EQ(f.ip, at); // reported by the next waiting instruction
    uint16_t status;
    ASM("fnstsw %0" : "=a"(status)); // no-wait instructions do not report
    CHECK_EQ(status & 0x84, 0x84);
    CHECK_EQ(attempt([] { ASM("fld1"); }).vector, MF);
    ASM("fnclex");
    CHECK_EQ(attempt([] { ASM("fld1; fwait"); }).vector, NONE);
    ASM("fninit");
}

CASE(x87_exceptions_without_ne_go_to_irq_13) {
    static unsigned volatile hits;
    static uint16_t const unmasked = 0x37b;
    hits = 0;
    outb(0x20, 0x11), outb(0xa0, 0x11), outb(0x21, 0x80), outb(0xa1, 0x88), outb(0x21, 4), outb(0xa1, 2), outb(0x21, 1),
        outb(0xa1, 1);
    outb(0x21, 0xfb);
    outb(0xa1, 0xdf);
    set_handler(0x8d, [](Frame*) {
        hits = hits + 1;
        outb(0xf0, 0);
        ASM("fnclex");
        outb(0xa0, 0x20);
        outb(0x20, 0x20);
    });
    write_cr0(read_cr0() & ~CR0_NE);
    Fault f = attempt(
        [] { ASM("fninit; fldcw %0; fldz; fld1; fdiv %%st(1), %%st; sti; fwait; nop; nop; cli" ::"m"(unmasked)); });
    write_cr0(read_cr0() | CR0_NE);
    CHECK_EQ(f.vector, NONE);
    CHECK_EQ(hits, 1);
    outb(0x21, 0xff), outb(0xa1, 0xff);
    set_handler(0x8d, nullptr);
    ASM("fninit");
}
