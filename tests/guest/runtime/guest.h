// What a guest program includes: cases and checks, the console, exceptions as values, ring 3, descriptor tables.
//
// A program is a list of CASE(name) { ... } bodies. Each prints "case name" and then "ok name", "FAIL name" or "skip
// name: reason"; the last line is "N passed, N failed". The program leaves through isa-debug-exit with 0 when nothing
// failed.
#pragma once

#include "runtime/cpu.h"

struct Case {
    char const* name;
    void (*run)();
};
#define CASE(name)                                                                                                     \
    static void case_##name();                                                                                         \
    extern Case const entry_##name;                                                                                    \
    Case const entry_##name __attribute__((section(".cases"), used, aligned(sizeof(void*)))) = {#name, case_##name};   \
    static void case_##name()

// Checks count and go on; they print the source line, what was seen and what was wanted.
void check_true(bool ok, char const* file, int line, char const* what);
void check_equal(unsigned long long seen, unsigned long long wanted, char const* file, int line, char const* what);
#define CHECK(condition) check_true((condition), __FILE_NAME__, __LINE__, #condition)
#define CHECK_EQ(seen, wanted)                                                                                         \
    check_equal((unsigned long long)(seen), (unsigned long long)(wanted), __FILE_NAME__, __LINE__, #seen)
// Ends the case as skipped, with the reason in the log.
#define SKIP(reason)                                                                                                   \
    do {                                                                                                               \
        note_skip(reason);                                                                                             \
        return;                                                                                                        \
    } while (0)
void note_skip(char const* reason);
// The CPU refused an instruction that every CPU has: the case is skipped whatever it found. The runner takes this from
// nobody but a KVM that emulates.
void note_cannot_emulate(uint8_t opcode);

// Text to the debug console: %s %c %d %u %x with l and ll; %x has no prefix.
void print(char const* format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void leave(uint8_t code);
// The kernel command line; number(name) is the value of "name=123" in it, or the fallback.
char const* command_line();
unsigned long command_number(char const* name, unsigned long fallback);

extern "C" {
void* memset(void*, int, size_t);
void* memcpy(void*, void const*, size_t);
int memcmp(void const*, void const*, size_t);
}

#ifdef __x86_64__
struct Frame {
    word r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax, vector, error, ip, cs, flags, sp, ss;
};
inline constexpr word USER_OFFSET = 0x8000000000; // low memory again, user accessible
inline constexpr uint16_t KERNEL_CS = 0x08, KERNEL_DS = 0x10, KERNEL_CS32 = 0x18, USER_DS = 0x23, USER_CS = 0x2b,
                          USER_CS32 = 0x1b | 0x100;
#else
struct Frame {
    word gs, fs, es, ds, di, si, bp, sp_here, bx, dx, cx, ax, vector, error, ip, cs, flags, sp, ss, v86_es, v86_ds,
        v86_fs, v86_gs;
};
inline constexpr word USER_OFFSET = 0;
inline constexpr uint16_t KERNEL_CS = 0x08, KERNEL_DS = 0x10, USER_CS = 0x1b, USER_DS = 0x23;
#endif

// The outcome of a guarded call. `vector` is NONE when it returned. cr2 is the register as it was in the handler.
struct Fault {
    unsigned vector;
    word error, ip, cs, flags, sp, ss, ax, cr2, dr6;
    Frame frame;
};
inline constexpr unsigned NONE = 0x1000;

// Runs body; an exception or interrupt without a handler of its own ends it and is returned. Callee-saved registers,
// flags and data segments are restored. One guarded call may be inside another.
Fault attempt(void (*body)(void*), void* argument);
template <class Body> Fault attempt(Body body) {
    return attempt([](void* p) { (*static_cast<Body*>(p))(); }, &body);
}
// Runs a function in ring 3. In 64-bit programs it runs at its address plus USER_OFFSET and must be position
// independent: it may use its argument, locals and static data, but no stored addresses. A normal return shows as
// vector USER_RETURN, with the result in .ax.
Fault run_user(word (*function)(word), word argument = 0, word with_flags = 2);
template <class T> T* user(T* p) { return reinterpret_cast<T*>(word(p) + USER_OFFSET); }

// A handler runs instead of ending the guarded call; it may change the frame. nullptr removes it.
using Handler = void (*)(Frame*);
void set_handler(unsigned vector, Handler);
// Makes a handler's return end the innermost guarded call, with the frame as its fault.
void escape(Frame*);

// Descriptor tables of the boot CPU. Slots 0..7 of the GDT are the runtime's, 8..63 the program's.
inline constexpr unsigned FREE_SLOT = 8, GDT_SLOTS = 64;
uint64_t* gdt();
// A code or data descriptor. access is byte 5 (present, DPL, type), flags its nibble G D L AVL.
uint64_t segment(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags);
// A 32-bit gate (interrupt 0xe, trap 0xf, call 0xc, task 5; 16-bit 6, 7, 4).
uint64_t gate(uint16_t selector, uint32_t offset, uint8_t access, uint8_t parameters = 0);
struct IdtEntry {
    uint64_t low;
#ifdef __x86_64__
    uint64_t high;
#endif
};
IdtEntry* idt();
void set_gate(unsigned vector, word offset, uint8_t access = 0x8e, uint8_t ist = 0, uint16_t selector = KERNEL_CS);
word stub_address(unsigned vector); // the runtime's own entry of a vector
void reload_tables();               // GDT, IDT, TR back to the runtime's

#ifdef __x86_64__
struct __attribute__((packed)) Tss {
    uint32_t reserved;
    uint64_t sp[3];
    uint64_t reserved2;
    uint64_t ist[7];
    uint64_t reserved3;
    uint16_t reserved4, io_map;
    uint8_t bitmap[8193];
};
#else
struct Tss {
    uint32_t link, sp0, ss0, sp1, ss1, sp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss,
        ds, fs, gs, ldt;
    uint16_t trap, io_map;
    uint8_t bitmap[8193 + 32];
};
#endif
Tss* tss();
inline constexpr uint16_t TSS_SELECTOR = 0x30;
