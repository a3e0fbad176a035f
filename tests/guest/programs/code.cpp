// Code that changes: the next instruction patched, the running block, an instruction across two pages, one page mapped
// twice, jumps into the middle of instructions, code replaced by DMA-like writes through another address.
#include "runtime/guest.h"

namespace {
alignas(4096) uint8_t pages[4][4096];
alignas(4096) uint64_t tables[3][512];
extern "C" uint64_t guest_pml4[];
constexpr word WINDOW = 0x10000000000;

using Function = word (*)(word);
word call(void const* code, word argument = 0) { return reinterpret_cast<Function>(word(code))(argument); }
void put_return(uint8_t* at, uint32_t value) { // mov eax, value; ret
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}
void map_window() {
    memset(tables, 0, sizeof tables);
    guest_pml4[2] = word(tables[0]) | 7;
    tables[0][0] = word(tables[1]) | 7;
    tables[1][0] = word(tables[2]) | 7;
    for (unsigned n = 0; n < 4; ++n) tables[2][n] = word(pages[n]) | 7;
    write_cr3(read_cr3());
}
} // namespace

CASE(patched_code_is_seen_at_the_next_call) {
    uint8_t* at = pages[0];
    for (uint32_t n = 0; n < 300; ++n) {
        put_return(at, n);
        CHECK_EQ(call(at), n);
    }
    for (uint32_t n = 0; n < 100; ++n) { // one byte alone
        at[1] = uint8_t(n);
        CHECK_EQ(call(at) & 0xff, n);
    }
}

CASE(the_next_instruction_is_patched) {
    // mov byte [rip+0], 0x42 ... the MOV EAX right behind gets its immediate replaced
    static uint8_t const code[] = {0xc6, 0x05, 0x01, 0, 0, 0, 0x42, 0xb8, 0, 0, 0, 0, 0xc3};
    uint8_t* at = pages[0] + 100;
    memcpy(at, code, sizeof code);
    CHECK_EQ(call(at), 0x42);
    at[8] = 0;
    CHECK_EQ(call(at), 0x42);
}

CASE(a_block_patches_itself_in_a_loop) {
    // loop: inc byte [rip+imm]; mov eax, imm; dec ecx; jnz loop; ret
    static uint8_t const code[] = {0x89, 0xf9, 0xfe, 0x05, 0x01, 0,    0,    0,    0xb8,
                                   0,    0,    0,    0,    0xff, 0xc9, 0x75, 0xf1, 0xc3};
    uint8_t* at = pages[0] + 200;
    memcpy(at, code, sizeof code);
    CHECK_EQ(call(at, 100), 100);
}

CASE(an_instruction_across_two_pages_is_patched_on_either) {
    map_window();
    uint8_t* at = pages[0] + 4094; // b8 xx | xx xx xx c3
    put_return(at, 0x11223344);
    CHECK_EQ(call(at), 0x11223344);
    pages[1][0] = 0x99; // the second byte of the immediate lies on the next page
    CHECK_EQ(call(at), 0x11229944);
    pages[0][4095] = 0x77;
    CHECK_EQ(call(at), 0x11229977);
    for (uint32_t n = 0; n < 100; ++n) {
        pages[1][n & 1] = uint8_t(n);
        CHECK_EQ(call(at) >> (8 + 8 * (n & 1)) & 0xff, n);
    }
}

CASE(the_second_page_of_an_instruction_is_remapped) {
    map_window();
    put_return(pages[0] + 4094, 0x11223344);
    memcpy(pages[2], pages[1], 16);
    pages[2][2] = 0x55;
    auto at = reinterpret_cast<void const*>(WINDOW + 4094);
    CHECK_EQ(call(at), 0x11223344);
    tables[2][1] = word(pages[2]) | 7;
    invlpg(WINDOW + 4096);
    CHECK_EQ(call(at), 0x55223344);
    tables[2][1] = 0;
    invlpg(WINDOW + 4096);
    Fault f = attempt([=] { call(at); });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.cr2, WINDOW + 4096);
    CHECK_EQ(f.ip, WINDOW + 4094);
}

CASE(code_shared_by_two_mappings) {
    map_window();
    tables[2][3] = word(pages[0]) | 7; // page 0 again at WINDOW + 3 pages
    invlpg(WINDOW + 3 * 4096);
    auto first = reinterpret_cast<uint8_t*>(WINDOW), second = reinterpret_cast<uint8_t*>(WINDOW + 3 * 4096);
    put_return(pages[0], 1);
    CHECK_EQ(call(first), 1);
    CHECK_EQ(call(second), 1);
    second[1] = 2; // written through one, run through the other
    CHECK_EQ(call(first), 2);
    first[1] = 3;
    CHECK_EQ(call(second), 3);
    pages[0][1] = 4;
    CHECK_EQ(call(first), 4);
    CHECK_EQ(call(second), 4);
}

CASE(the_same_address_gets_other_code) {
    map_window();
    auto at = reinterpret_cast<void const*>(WINDOW);
    put_return(pages[0], 10);
    put_return(pages[1], 20);
    for (unsigned n = 0; n < 20; ++n) {
        tables[2][0] = word(pages[n % 2]) | 7;
        invlpg(WINDOW);
        CHECK_EQ(call(at), 10 + 10 * (n % 2));
    }
}

CASE(a_jump_into_the_middle_of_an_instruction) {
    // b8 31 c0 c3 90: mov eax, 0x90c3c031 / from byte 1: xor eax, eax; ret
    static uint8_t const code[] = {0xb8, 0x31, 0xc0, 0xc3, 0x90, 0xc3};
    uint8_t* at = pages[0] + 300;
    memcpy(at, code, sizeof code);
    CHECK_EQ(call(at), 0x90c3c031);
    CHECK_EQ(call(at + 1), 0);
    at[2] = 0xc8; // xor eax, ecx
    CHECK_EQ(call(at), 0x90c3c831);
}

CASE(string_stores_over_their_own_code) {
    // rep stosb writes over the instructions behind it: mov ecx,6; mov al,0x90; lea rdi,[rip+x]; rep stosb; (6 bytes:
    // mov eax, 0xff; ..) ret
    static uint8_t const code[] = {0xb9, 5, 0, 0, 0,    0x31, 0xc0, 0xb0, 0x90, 0x48, 0x8d, 0x3d,
                                   2,    0, 0, 0, 0xf3, 0xaa, 0xb8, 1,    2,    3,    4,    0xc3};
    uint8_t* at = pages[0] + 400;
    memcpy(at, code, sizeof code);
    CHECK_EQ(call(at), 0x90);
}

CASE(a_call_whose_return_address_falls_on_code_leads_to_code_that_patches_itself) {
    // mov rsi, rsp; lea rsp, [rip+0x36]; call rax; mov rsp, rsi; ret: the push hits the 64 bytes this lies in
    static uint8_t const caller[] = {0x48, 0x89, 0xe6, 0x48, 0x8d, 0x25, 0x36, 0,
                                     0,    0,    0xff, 0xd0, 0x48, 0x89, 0xf4, 0xc3};
    static uint8_t const callee[] = {0x88, 0x0a, 0xb8, 0, 0, 0, 0, 0xc3}; // mov [rdx], cl; mov eax, 0; ret
    static uint8_t elsewhere[8];
    uint8_t *from = pages[3], *to = pages[3] + 0x100;
    memcpy(from, caller, sizeof caller);
    memcpy(to, callee, sizeof callee);
    auto run = [&](uint8_t* patch, word value) {
        word result = word(to);
        ASM("call *%1" : "+a"(result) : "r"(from), "d"(patch), "c"(value) : "rsi", "memory", "cc");
        return result;
    };
    for (unsigned n = 0; n < 20; ++n) CHECK_EQ(run(elsewhere, n), 0);
    CHECK_EQ(run(to + 3, 0x55), 0x55);
    CHECK_EQ(run(elsewhere, 0), 0x55);
}

CASE(many_functions_in_one_page_are_rewritten) {
    for (unsigned round = 0; round < 8; ++round) {
        for (unsigned n = 0; n < 256; ++n) put_return(pages[2] + n * 16, round * 1000 + n);
        word sum = 0;
        for (unsigned n = 0; n < 256; ++n) sum += call(pages[2] + n * 16);
        CHECK_EQ(sum, 256 * 1000 * round + 255 * 128);
    }
}

CASE(data_beside_code_may_be_written_often) {
    uint8_t* at = pages[3];
    put_return(at, 5);
    auto data = reinterpret_cast<uint32_t volatile*>(at + 2048);
    *data = 0;
    word sum = 0;
    for (unsigned n = 0; n < 2000; ++n) {
        *data = *data + 1;
        sum += call(at);
    }
    CHECK_EQ(*data, 2000);
    CHECK_EQ(sum, 10000);
}
