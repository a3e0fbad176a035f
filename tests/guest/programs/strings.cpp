// Repeated string instructions that fault half way: counts, pointers and memory are exact, and they resume.
#include "runtime/guest.h"

namespace {
alignas(4096) uint8_t pages[6][4096];
alignas(4096) uint64_t tables[3][512];
extern "C" uint64_t guest_pml4[];
constexpr word WINDOW = 0x10000000000, HOLE = WINDOW + 2 * 4096; // pages 0 1 - 3 4 5

void map_window() {
    memset(tables, 0, sizeof tables);
    guest_pml4[2] = word(tables[0]) | 7;
    tables[0][0] = word(tables[1]) | 7;
    tables[1][0] = word(tables[2]) | 7;
    for (unsigned n = 0; n < 6; ++n) tables[2][n] = n == 2 ? 0 : word(pages[n]) | 7;
    write_cr3(read_cr3());
    for (unsigned n = 0; n < 6; ++n)
        for (unsigned i = 0; i < 4096; ++i) pages[n][i] = uint8_t(n * 37 + i * 11 + i / 256);
}
} // namespace

CASE(rep_movs_stops_at_the_fault_and_resumes) {
    map_window();
    Fault f = attempt([] { ASM("rep movsb" ::"S"(WINDOW), "D"(HOLE - 100), "c"(300l) : "memory"); });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.error, 2);
    CHECK_EQ(f.cr2, HOLE);
    CHECK_EQ(f.frame.cx, 200);
    CHECK_EQ(f.frame.si, WINDOW + 100);
    CHECK_EQ(f.frame.di, HOLE);
    CHECK_EQ(memcmp(pages[1] + 3996, pages[0], 100), 0);
    set_handler(PF, [](Frame*) {
        tables[2][2] = word(pages[2]) | 7;
        invlpg(HOLE);
    });
    ASM("rep movsb" ::"S"(WINDOW), "D"(HOLE - 100), "c"(300l) : "memory");
    set_handler(PF, nullptr);
    CHECK_EQ(memcmp(pages[2], pages[0] + 100, 200), 0);
}

CASE(rep_movs_faults_on_its_source) {
    map_window();
    Fault f = attempt([] { ASM("rep movsl" ::"S"(HOLE - 16), "D"(WINDOW), "c"(100l) : "memory"); });
    CHECK_EQ(f.error, 0);
    CHECK_EQ(f.cr2, HOLE);
    CHECK_EQ(f.frame.cx, 96);
    CHECK_EQ(f.frame.si, HOLE);
    CHECK_EQ(f.frame.di, WINDOW + 16);
    f = attempt([] {
        ASM("rep movsq" ::"S"(HOLE - 20), "D"(WINDOW), "c"(100l) : "memory");
    }); // an element across the edge
    CHECK_EQ(f.cr2, HOLE);
    CHECK_EQ(f.frame.cx, 98);
    CHECK_EQ(f.frame.si, HOLE - 4);
}

CASE(backwards) {
    map_window();
    Fault f = attempt([] { ASM("std; rep movsb" ::"S"(WINDOW + 500), "D"(HOLE + 4096 + 9), "c"(300l) : "memory"); });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.cr2, HOLE + 4095);
    CHECK_EQ(f.frame.cx, 290);
    CHECK_EQ(f.frame.si, WINDOW + 490);
    CHECK_EQ(f.frame.di, HOLE + 4095);
    CHECK(f.flags & FLAG_DF);
}

CASE(stos_lods_cmps_scas) {
    map_window();
    Fault f = attempt([] { ASM("rep stosq" ::"D"(HOLE - 64), "c"(100l), "a"(0l) : "memory"); });
    CHECK_EQ(f.frame.cx, 92);
    CHECK_EQ(f.frame.di, HOLE);
    f = attempt([] { ASM("rep lodsb" ::"S"(HOLE - 10), "c"(20l) : "rax"); });
    CHECK_EQ(f.frame.cx, 10);
    CHECK_EQ(f.frame.ax & 0xff, pages[1][4095]);
    memset(pages[1] + 4000, 7, 96);
    memset(pages[0] + 100, 7, 200);
    f = attempt([] { ASM("repe cmpsb" ::"S"(WINDOW + 100), "D"(HOLE - 50), "c"(200l) : "memory", "cc"); });
    CHECK_EQ(f.frame.cx, 150);
    CHECK_EQ(f.cr2, HOLE);
    f = attempt([] { ASM("repne scasb" ::"D"(HOLE - 30), "c"(200l), "a"(8) : "memory", "cc"); });
    CHECK_EQ(f.frame.cx, 170);
    word rest = 200, at = HOLE - 30;
    pages[1][4090] = 9;
    ASM("repne scasb" : "+D"(at), "+c"(rest) : "a"(9) : "memory", "cc"); // ends before the hole
    CHECK_EQ(at, HOLE - 5);
    CHECK_EQ(rest, 175);
}

CASE(a_count_of_zero_touches_nothing) {
    map_window();
    CHECK_EQ(attempt([] { ASM("rep movsb; rep stosb" ::"S"(HOLE), "D"(HOLE), "c"(0l) : "memory"); }).vector, NONE);
    CHECK_EQ(attempt([] { ASM("repe cmpsb" ::"S"(HOLE), "D"(HOLE), "c"(0l) : "memory", "cc"); }).vector, NONE);
}

CASE(thirty_two_bit_addresses_wrap_and_keep_counts) {
    static uint8_t from[8] = {1, 2, 3, 4, 5, 6, 7, 8}, to[8];
    word count = 0xffffffff00000004, source = word(from), target = word(to);
    ASM(".byte 0x67; rep movsb" : "+S"(source), "+D"(target), "+c"(count)::"memory");
    CHECK_EQ(count, 0);
    CHECK_EQ(to[3], 4);
    CHECK_EQ(to[4], 0);
}

CASE(overlapping_moves_go_byte_by_byte) {
    map_window();
    pages[0][0] = 0x5a;
    ASM("rep movsb" ::"S"(WINDOW), "D"(WINDOW + 1), "c"(5000l) : "memory");
    unsigned wrong = 0;
    for (unsigned i = 0; i < 4096; ++i) wrong += pages[0][i] != 0x5a;
    CHECK_EQ(wrong, 0);
    CHECK_EQ(pages[1][900], 0x5a);
}

CASE(string_io_faults_before_the_port_is_read) {
    map_window();
    outb(0xe0, 0x37); // the test device's latch
    Fault f = attempt([] { ASM("rep insb" ::"D"(HOLE - 4), "d"(0xe0), "c"(10l) : "memory"); });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.frame.cx, 6);
    CHECK_EQ(f.frame.di, HOLE);
    CHECK_EQ(pages[1][4095], 0x37);
    f = attempt([] { ASM("rep outsb" ::"S"(HOLE - 4), "d"(0xe0), "c"(10l) : "memory"); });
    CHECK_EQ(f.frame.cx, 6);
    CHECK_EQ(inb(0xe0), pages[1][4095]);
}
