// Two-level and PAE paging in 32-bit mode: permissions, 4 MiB and 2 MiB pages, PSE off, page-directory-pointer
// registers, NX under PAE.
#include "runtime/guest.h"

namespace {
alignas(4096) uint32_t directory[1024], table[1024];
alignas(4096) uint64_t pae_directory[4][512], pae_table[512];
alignas(32) uint64_t pointers[4];
alignas(4096) uint8_t page[2][4096];
constexpr word WINDOW = 0x40000000;
constexpr uint64_t NX = uint64_t(1) << 63;

void on() { write_cr0(read_cr0() | CR0_PG | CR0_WP); }
void off() {
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));
    write_cr4(read_cr4() & ~(CR4_PAE | CR4_PSE));
}
// One to one with 4 MiB pages, WINDOW through `table`.
void two_level() {
    for (unsigned n = 0; n < 1024; ++n) directory[n] = n << 22 | 0x87;
    directory[WINDOW >> 22] = word(table) | 7;
    memset(table, 0, sizeof table);
    table[0] = word(page[0]) | 7;
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3(word(directory));
    on();
}
void pae() {
    for (unsigned n = 0; n < 2048; ++n) pae_directory[n / 512][n % 512] = uint64_t(n) << 21 | 0x87;
    for (unsigned n = 0; n < 4; ++n) pointers[n] = word(pae_directory[n]) | 1;
    pae_directory[WINDOW >> 30][0] = word(pae_table) | 7;
    memset(pae_table, 0, sizeof pae_table);
    pae_table[0] = word(page[0]) | 7;
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3(word(pointers));
    on();
}
Fault read_it(word at = WINDOW) {
    return attempt([=] { ASM("movb (%0), %%al" ::"r"(at) : "eax"); });
}
Fault write_it(word at = WINDOW) {
    return attempt([=] { ASM("movb $1, (%0)" ::"r"(at) : "memory"); });
}
Fault user_write() {
    return run_user(
        [](word at) -> word {
            ASM("movb $1, (%0)" ::"r"(at) : "memory");
            return 0;
        },
        WINDOW);
}
#define PAGE_FAULT(fault, code)                                                                                        \
    do {                                                                                                               \
        Fault fault_ = (fault);                                                                                        \
        CHECK_EQ(fault_.vector, PF);                                                                                   \
        CHECK_EQ(fault_.error, code);                                                                                  \
    } while (0)
} // namespace

CASE(two_level_permissions) {
    two_level();
    CHECK_EQ(write_it().vector, NONE);
    CHECK_EQ(table[0] & 0x60, 0x60);
    CHECK_EQ(directory[WINDOW >> 22] & 0x20, 0x20);
    CHECK_EQ(user_write().vector, USER_RETURN);
    table[0] = word(page[0]) | 3;
    invlpg(WINDOW);
    PAGE_FAULT(user_write(), 7);
    table[0] = word(page[0]) | 5;
    invlpg(WINDOW);
    PAGE_FAULT(write_it(), 3);
    PAGE_FAULT(user_write(), 7);
    write_cr0(read_cr0() & ~CR0_WP);
    CHECK_EQ(write_it().vector, NONE);
    write_cr0(read_cr0() | CR0_WP);
    table[0] = 0;
    invlpg(WINDOW);
    PAGE_FAULT(read_it(), 0);
    PAGE_FAULT(write_it(), 2);
    PAGE_FAULT(user_write(), 6);
    directory[WINDOW >> 22] &= ~word(2);
    table[0] = word(page[0]) | 7;
    write_cr3(read_cr3());
    PAGE_FAULT(write_it(), 3);
    off();
}

CASE(four_megabyte_pages) {
    two_level();
    page[0][5] = 0x5c;
    directory[(WINDOW >> 22) + 1] = (word(page[0]) & 0xffc00000) | 0x87;
    invlpg(WINDOW + 0x400000);
    CHECK_EQ(*reinterpret_cast<uint8_t volatile*>(WINDOW + 0x400000 + (word(page[0]) & 0x3fffff) + 5), 0x5c);
    CHECK_EQ(directory[(WINDOW >> 22) + 1] & 0x60, 0x20);
    directory[(WINDOW >> 22) + 1] |= 1 << 21; // reserved
    invlpg(WINDOW + 0x400000);
    PAGE_FAULT(read_it(WINDOW + 0x400000), 9);
    off();
}

CASE(pae_permissions_and_nx) {
    pae();
    CHECK_EQ(write_it().vector, NONE);
    CHECK_EQ(pae_table[0] & 0x60, 0x60);
    pae_table[0] = word(page[0]) | 5;
    invlpg(WINDOW);
    PAGE_FAULT(write_it(), 3);
    pae_table[0] |= NX; // reserved without EFER.NXE
    invlpg(WINDOW);
    PAGE_FAULT(read_it(), 9);
    if (bit(cpuid(0x80000001).d, 20)) {
        wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
        invlpg(WINDOW);
        CHECK_EQ(read_it().vector, NONE);
        Fault f = attempt([] { ASM("call *%0" ::"r"(WINDOW)); });
        CHECK_EQ(f.vector, PF);
        CHECK_EQ(f.error, 0x11);
        wrmsr(0xc0000080, rdmsr(0xc0000080) & ~uint64_t(0x800));
    }
    pae_table[0] = word(page[0]) | 7 | uint64_t(1) << 62; // reserved
    invlpg(WINDOW);
    PAGE_FAULT(read_it(), 9);
    off();
}

CASE(pae_pointers_are_loaded_with_cr3) {
    pae();
    pointers[1] = 0; // not looked at until CR3 is written
    CHECK_EQ(read_it().vector, NONE);
    write_cr3(read_cr3());
    PAGE_FAULT(read_it(), 0);
    pointers[1] = word(pae_directory[1]) | 1 | 0x20; // reserved bits: the load faults
    Fault f = attempt([] { write_cr3(read_cr3()); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    pointers[1] = word(pae_directory[1]) | 1;
    write_cr3(read_cr3());
    CHECK_EQ(read_it().vector, NONE);
    off();
}

CASE(paging_can_be_turned_off_and_on) {
    for (unsigned n = 0; n < 3; ++n) {
        two_level();
        CHECK_EQ(read_it().vector, NONE);
        off();
        pae();
        CHECK_EQ(read_it().vector, NONE);
        off();
    }
    CHECK_EQ(attempt([] { write_cr0((read_cr0() | CR0_PG) & ~CR0_PE); }).vector, GP);
}
