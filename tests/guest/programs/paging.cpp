// Four-level paging: the permission matrix, accessed and dirty bits, reserved bits, page sizes, what flushes a
// translation, PCID.
#include "runtime/guest.h"

namespace {

constexpr uint64_t P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100, NX = uint64_t(1) << 63;
alignas(4096) uint64_t tables[8][512]; // pdpt, pd, pt, and spares
alignas(4096) uint8_t page[4][4096];
constexpr word WINDOW = 0x10000000000; // PML4 slot 2, the program's own
extern "C" uint64_t guest_pml4[];

// Maps WINDOW + n * 4096 to page n with the given bits at every level.
void map(uint64_t pml4_bits, uint64_t pdpt_bits, uint64_t pd_bits, uint64_t pt_bits) {
    memset(tables, 0, sizeof tables);
    guest_pml4[2] = word(tables[0]) | pml4_bits;
    tables[0][0] = word(tables[1]) | pdpt_bits;
    tables[1][0] = word(tables[2]) | pd_bits;
    for (unsigned n = 0; n < 4; ++n) tables[2][n] = word(page[n]) | pt_bits;
    write_cr3(read_cr3());
}
uint64_t& pte(unsigned n = 0) { return tables[2][n]; }

enum Kind { READ, WRITE, FETCH };
void access(Kind kind, word address) {
    if (kind == READ) ASM("mov (%0), %%al" ::"r"(address) : "eax", "memory");
    if (kind == WRITE) ASM("movb $0xc3, (%0)" ::"r"(address) : "memory");
    if (kind == FETCH) ASM("call *%0" ::"r"(address) : "memory");
}
Fault kernel_access(Kind kind, word address) {
    return attempt([=] { access(kind, address); });
}
struct Wanted {
    Kind kind;
    word address;
};
Wanted wanted;
Fault user_access(Kind kind, word address) {
    wanted = {kind, address};
    word (*reader)(word) = [](word a) -> word {
        ASM("mov (%0), %%al" ::"r"(a) : "eax", "memory");
        return 0;
    };
    word (*writer)(word) = [](word a) -> word {
        ASM("movb $0xc3, (%0)" ::"r"(a) : "memory");
        return 0;
    };
    word (*caller)(word) = [](word a) -> word {
        ASM("call *%0" ::"r"(a) : "memory");
        return 0;
    };
    return run_user(kind == READ ? reader : kind == WRITE ? writer : caller, address);
}
bool has_feature7(unsigned b) { return bit(cpuid(7).b, b); }

// One row: which bits, which access, and the wanted #PF error, or -1 for success.
void expect(Kind kind, bool from_user, int error, int line) {
    memset(page[0], 0xc3, 4096);
    Fault f = from_user ? user_access(kind, WINDOW) : kernel_access(kind, WINDOW);
    if (error < 0) return check_equal(f.vector, from_user ? USER_RETURN : NONE, __FILE_NAME__, line, "vector");
    check_equal(f.vector, PF, __FILE_NAME__, line, "vector");
    check_equal(f.error, unsigned(error), __FILE_NAME__, line, "error code");
    check_equal(f.cr2, WINDOW, __FILE_NAME__, line, "cr2");
}
#define EXPECT(kind, from_user, error) expect(kind, from_user, error, __LINE__)
constexpr bool user_mode = true, kernel = false;
constexpr int fine = -1;

} // namespace

CASE(every_level_of_user_and_write) {
    for (unsigned level = 0; level < 4; ++level) {
        auto bits = [&](uint64_t all, uint64_t missing) {
            uint64_t b[4] = {all, all, all, all};
            b[level] &= ~missing;
            map(b[0], b[1], b[2], b[3]);
        };
        bits(P | W | U, 0);
        EXPECT(READ, user_mode, fine);
        EXPECT(WRITE, user_mode, fine);
        EXPECT(FETCH, user_mode, fine);
        bits(P | W | U, U);
        EXPECT(READ, user_mode, 5);
        EXPECT(WRITE, user_mode, 7);
        EXPECT(FETCH, user_mode, 0x15);
        EXPECT(WRITE, kernel, fine);
        bits(P | W | U, W);
        EXPECT(READ, user_mode, fine);
        EXPECT(WRITE, user_mode, 7);
        EXPECT(WRITE, kernel, 3);
        write_cr0(read_cr0() & ~CR0_WP);
        EXPECT(WRITE, kernel, fine);
        EXPECT(WRITE, user_mode, 7);
        write_cr0(read_cr0() | CR0_WP);
        EXPECT(WRITE, kernel, 3);
        bits(P | W | U, P);
        EXPECT(READ, user_mode, 4);
        EXPECT(WRITE, user_mode, 6);
        EXPECT(FETCH, user_mode, 0x14);
        EXPECT(READ, kernel, 0);
        EXPECT(WRITE, kernel, 2);
        EXPECT(FETCH, kernel, 0x10);
    }
}

CASE(no_execute_at_every_level) {
    for (unsigned level = 0; level < 4; ++level) {
        uint64_t b[4] = {P | W | U, P | W | U, P | W | U, P | W | U};
        b[level] |= NX;
        map(b[0], b[1], b[2], b[3]);
        EXPECT(READ, user_mode, fine);
        EXPECT(FETCH, user_mode, 0x15);
        EXPECT(FETCH, kernel, 0x11);
    }
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~uint64_t(0x800)); // NXE off: bit 63 is reserved
    EXPECT(READ, kernel, 9);
    EXPECT(READ, user_mode, 0xd);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    EXPECT(READ, kernel, fine);
}

CASE(smep_forbids_user_pages_to_the_kernel) {
    if (!has_feature7(7)) SKIP("no SMEP");
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    EXPECT(FETCH, kernel, fine);
    write_cr4(read_cr4() | CR4_SMEP);
    EXPECT(FETCH, kernel, 0x11);
    EXPECT(READ, kernel, fine);
    EXPECT(FETCH, user_mode, fine);
    map(P | W | U, P | W | U, P | W | U, P | W);
    EXPECT(FETCH, kernel, fine);
    write_cr4(read_cr4() & ~CR4_SMEP);
}

CASE(smap_forbids_user_data_unless_ac) {
    if (!has_feature7(20)) SKIP("no SMAP");
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    write_cr4(read_cr4() | CR4_SMAP);
    EXPECT(READ, kernel, 1);
    EXPECT(WRITE, kernel, 3);
    EXPECT(READ, user_mode, fine);
    Fault f = attempt([] { ASM("stac; mov (%0), %%al; clac" ::"r"(WINDOW) : "eax"); });
    CHECK_EQ(f.vector, NONE);
    f = attempt([] { ASM("stac; clac; mov (%0), %%al" ::"r"(WINDOW) : "eax"); });
    CHECK_EQ(f.vector, PF);
    f = run_user([](word) -> word {
        ASM("stac");
        return 0;
    });
    CHECK_EQ(f.vector, UD);
    // An implicit supervisor access (the IDT in a user page) faults even with AC; a GDT access too.
    write_cr4(read_cr4() & ~CR4_SMAP);
    CHECK_EQ(attempt([] { ASM("stac; clac"); }).vector, NONE); // CR4.SMAP does not matter to STAC
}

CASE(accessed_and_dirty_bits) {
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    EXPECT(READ, kernel, fine);
    CHECK_EQ(pte() & (A | D), A);
    CHECK_EQ(tables[1][0] & (A | D), A);
    CHECK_EQ(tables[0][0] & (A | D), A);
    CHECK_EQ(guest_pml4[2] & (A | D), A);
    EXPECT(WRITE, kernel, fine);
    CHECK_EQ(pte() & (A | D), A | D);
    map(P | W | U, P | W | U, P | W | U, P | U);
    EXPECT(WRITE, kernel, 3);
    CHECK_EQ(pte() & D, 0);
    pte() &= ~(A | D); // cleared by hand and flushed: set again
    invlpg(WINDOW);
    EXPECT(FETCH, kernel, fine);
    CHECK_EQ(pte() & (A | D), A);
    pte(1) &= ~P;
    tables[1][0] &= ~A;
    write_cr3(read_cr3());
    kernel_access(READ, WINDOW + 4096);
    CHECK_EQ(pte(1) & A, 0);
}

CASE(cmpxchg_that_fails_still_needs_write) {
    map(P | W | U, P | W | U, P | W | U, P | U);
    Fault f = attempt([] {
        ASM("mov $1, %%eax; movl $2, %%ecx; lock cmpxchg %%ecx, (%0)" ::"r"(WINDOW) : "eax", "ecx", "memory");
    });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.error, 3);
}

CASE(reserved_bits_at_every_level) {
    for (unsigned level = 0; level < 4; ++level) {
        uint64_t b[4] = {P | W | U, P | W | U, P | W | U, P | W | U};
        b[level] |= uint64_t(1) << 51;
        unsigned width = cpuid(0x80000008).a & 0xff;
        if (width >= 52) SKIP("52 bits of physical address");
        map(b[0], b[1], b[2], b[3]);
        EXPECT(READ, kernel, 9);
        EXPECT(WRITE, kernel, 0xb);
        EXPECT(READ, user_mode, 0xd);
        EXPECT(FETCH, user_mode, 0x1d);
    }
    map(P | W | U | PS, P | W | U, P | W | U, P | W | U); // PS in a PML4 entry
    EXPECT(READ, kernel, 9);
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    tables[1][0] = 0x2000 | P | W | U | PS; // a 2 MiB page whose address has low bits
    write_cr3(read_cr3());
    EXPECT(READ, kernel, 9);
    map(P | W | U, P | W | U, P | W | U, 0);
    pte() = uint64_t(1) << 51; // not present: nothing is reserved
    invlpg(WINDOW);
    EXPECT(READ, kernel, 0);
}

CASE(large_pages) {
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    tables[1][1] = P | W | U | PS; // 2 MiB at physical 0
    write_cr3(read_cr3());
    static unsigned volatile marker;
    marker = 0x1234567;
    CHECK_EQ(*reinterpret_cast<unsigned volatile*>(WINDOW + 0x200000 + word(&marker)), 0x1234567);
    CHECK_EQ(tables[1][1] & (A | D), A);
    *reinterpret_cast<unsigned volatile*>(WINDOW + 0x200000 + word(&marker)) = 7;
    CHECK_EQ(marker, 7);
    CHECK_EQ(tables[1][1] & (A | D), A | D);
    if (!bit(cpuid(0x80000001).d, 26)) SKIP("no 1 GiB pages");
    tables[0][1] = P | W | U | PS;
    write_cr3(read_cr3());
    CHECK_EQ(*reinterpret_cast<unsigned volatile*>(WINDOW + 0x40000000 + word(&marker)), 7);
    tables[0][2] = P | W | U | PS | 0x20000000; // reserved bits of a 1 GiB page
    Fault f = kernel_access(READ, WINDOW + 0x80000000);
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.error, 9);
    tables[0][1] = P | U | PS;
    invlpg(WINDOW + 0x40000000);
    f = kernel_access(WRITE, WINDOW + 0x40000000);
    CHECK_EQ(f.error, 3);
}

CASE(an_access_across_two_pages_faults_on_the_second) {
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    pte(1) = 0;
    invlpg(WINDOW + 4096);
    Fault f = attempt([] { ASM("mov (%0), %%rax" ::"r"(WINDOW + 4092) : "rax"); });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.cr2, WINDOW + 4096);
    memset(page[0] + 4088, 0xee, 8);
    f = attempt([] { ASM("movq $0, (%0)" ::"r"(WINDOW + 4092) : "memory"); });
    CHECK_EQ(f.error, 2);
    CHECK_EQ(f.cr2, WINDOW + 4096);
    CHECK_EQ(page[0][4095], 0xee); // nothing was written
    pte(1) = word(page[1]) | P;
    invlpg(WINDOW + 4096);
    f = attempt([] { ASM("movq $0, (%0)" ::"r"(WINDOW + 4092) : "memory"); });
    CHECK_EQ(f.error, 3);
    CHECK_EQ(page[0][4095], 0xee);
    page[0][4095] = 0x90; // code that runs off the page
    pte(1) = 0;
    invlpg(WINDOW + 4096);
    f = kernel_access(FETCH, WINDOW + 4095);
    CHECK_EQ(f.error, 0x10);
    CHECK_EQ(f.cr2, WINDOW + 4096);
    CHECK_EQ(f.ip, WINDOW + 4096);
    page[0][4095] = 0x0f; // an instruction that begins on the good page
    f = kernel_access(FETCH, WINDOW + 4095);
    CHECK_EQ(f.cr2, WINDOW + 4096);
    CHECK_EQ(f.ip, WINDOW + 4095);
}

CASE(invlpg_and_cr3_drop_translations) {
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    page[0][0] = 1;
    page[1][0] = 2;
    auto volatile byte = reinterpret_cast<uint8_t volatile*>(WINDOW);
    CHECK_EQ(*byte, 1);
    pte() = word(page[1]) | P | W | U;
    invlpg(WINDOW + 123);
    CHECK_EQ(*byte, 2);
    pte() = word(page[0]) | P | W | U;
    write_cr3(read_cr3());
    CHECK_EQ(*byte, 1);
    pte() = 0; // a fault drops the translation of its page: making it present again needs no INVLPG
    invlpg(WINDOW);
    CHECK_EQ(kernel_access(READ, WINDOW).vector, PF);
    pte() = word(page[1]) | P | W | U;
    CHECK_EQ(*byte, 2);
    pte() = word(page[1]) | P; // read-only, seen, then writable: the write succeeds after its fault at the latest
    invlpg(WINDOW);
    CHECK_EQ(*byte, 2);
    pte() = word(page[1]) | P | W;
    kernel_access(WRITE, WINDOW);
    CHECK_EQ(kernel_access(WRITE, WINDOW).vector, NONE);
}

CASE(global_pages_survive_cr3) {
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    write_cr4(read_cr4() | CR4_PGE);
    auto volatile byte = reinterpret_cast<uint8_t volatile*>(WINDOW);
    page[0][0] = 1;
    page[1][0] = 2;
    pte() = word(page[0]) | P | W | G;
    invlpg(WINDOW);
    CHECK_EQ(*byte, 1);
    pte() = word(page[1]) | P | W | G;
    write_cr3(read_cr3());
    uint8_t kept = *byte;
    CHECK(kept == 1 || kept == 2); // may be kept, need not be
    write_cr4(read_cr4() & ~CR4_PGE);
    CHECK_EQ(*byte, 2);
    pte() = word(page[0]) | P | W | G;
    invlpg(WINDOW);
    CHECK_EQ(*byte, 1);
}

CASE(pcid_separates_and_invpcid_drops) {
    if (!bit(cpuid(1).c, 17)) SKIP("no PCID");
    alignas(4096) static uint64_t other_pml4[512];
    map(P | W | U, P | W | U, P | W | U, P | W | U);
    memcpy(other_pml4, guest_pml4, 4096);
    other_pml4[2] = word(tables[4]) | P | W;
    tables[4][0] = word(tables[5]) | P | W;
    tables[5][0] = word(tables[6]) | P | W;
    tables[6][0] = word(page[1]) | P | W;
    page[0][0] = 1;
    page[1][0] = 2;
    page[2][0] = 3;
    word first = word(guest_pml4), second = word(other_pml4) | 5, keep = word(1) << 63;
    auto volatile byte = reinterpret_cast<uint8_t volatile*>(WINDOW);
    write_cr4(read_cr4() | CR4_PCIDE);
    for (unsigned n = 0; n < 3; ++n) {
        write_cr3(first | keep);
        CHECK_EQ(*byte, 1);
        write_cr3(second | keep);
        CHECK_EQ(*byte, 2);
    }
    CHECK_EQ(read_cr3(), second); // bit 63 is not kept
    tables[6][0] = word(page[2]) | P | W;
    write_cr3(first | keep);
    write_cr3(second); // without bit 63: PCID 5 is flushed
    CHECK_EQ(*byte, 3);
    if (bit(cpuid(7).b, 10)) {
        struct {
            uint64_t pcid, address;
        } descriptor = {5, WINDOW};
        for (word type = 0; type < 4; ++type) {
            tables[6][0] = word(page[1 + type % 2]) | P | W;
            ASM("invpcid %0, %1" ::"m"(descriptor), "r"(type) : "memory");
            CHECK_EQ(*byte, 2 + type % 2);
        }
        word type = 4;
        CHECK_EQ(attempt([&] { ASM("invpcid %0, %1" ::"m"(descriptor), "r"(type)); }).vector, GP);
        descriptor.pcid = 0x1000;
        type = 1;
        CHECK_EQ(attempt([&] { ASM("invpcid %0, %1" ::"m"(descriptor), "r"(type)); }).vector, GP);
    }
    CHECK_EQ(attempt([] { write_cr4(read_cr4() & ~CR4_PAE); }).vector, GP);
    write_cr3(first);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    CHECK_EQ(*byte, 1);
    write_cr3(first | 0x18); // PWT and PCD lie where the PCID would
    CHECK_EQ(attempt([&] { write_cr4(read_cr4() | CR4_PCIDE); }).vector, GP);
    write_cr3(first);
}

CASE(control_registers_refuse_bad_values) {
    CHECK_EQ(attempt([] { write_cr0(read_cr0() & ~CR0_PE); }).vector, GP);
    CHECK_EQ(attempt([] { write_cr0(read_cr0() & ~CR0_PG); }).vector, GP);                // from 64-bit code
    CHECK_EQ(attempt([] { write_cr0((read_cr0() | 0x20000000) & ~CR0_CD); }).vector, GP); // NW without CD
    CHECK_EQ(attempt([] { write_cr0(read_cr0() | word(1) << 32); }).vector, GP);
    CHECK_EQ(attempt([] { write_cr4(read_cr4() & ~CR4_PAE); }).vector, GP);
    CHECK_EQ(attempt([] { write_cr4(read_cr4() | word(1) << 31); }).vector, GP);
    CHECK_EQ(attempt([] { write_cr3(word(1) << 52 | read_cr3()); }).vector, GP);
    CHECK_EQ(attempt([] { write_cr8(16); }).vector, GP);
    CHECK_EQ(attempt([] { wrmsr(0xc0000080, rdmsr(0xc0000080) & ~uint64_t(0x100)); }).vector, GP); // LME while paging
    CHECK_EQ(attempt([] { wrmsr(0xc0000080, rdmsr(0xc0000080) | 2); }).vector, GP);
    CHECK_EQ(attempt([] { ASM(".byte 0x0f, 0x20, 0xc8" ::: "rax"); }).vector, UD); // CR1
    CHECK_EQ(attempt([] { ASM(".byte 0x0f, 0x20, 0xe8" ::: "rax"); }).vector, UD); // CR5
}
