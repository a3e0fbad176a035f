// The instructions a guest program needs and C++ has no words for, one inline function each.
#pragma once

#include <stddef.h>
#include <stdint.h>

using word = unsigned long; // 32 or 64 bits, as the program is built

#define ASM asm volatile

inline void outb(uint16_t port, uint8_t value) { ASM("outb %0, %1" ::"a"(value), "Nd"(port) : "memory"); }
inline void outw(uint16_t port, uint16_t value) { ASM("outw %0, %1" ::"a"(value), "Nd"(port) : "memory"); }
inline void outl(uint16_t port, uint32_t value) { ASM("outl %0, %1" ::"a"(value), "Nd"(port) : "memory"); }
inline uint8_t inb(uint16_t port) {
    uint8_t value;
    ASM("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline uint16_t inw(uint16_t port) {
    uint16_t value;
    ASM("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
inline uint32_t inl(uint16_t port) {
    uint32_t value;
    ASM("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

#define DEFINE_REGISTER(name)                                                                                          \
    inline word read_##name() {                                                                                        \
        word value;                                                                                                    \
        ASM("mov %%" #name ", %0" : "=r"(value)::"memory");                                                            \
        return value;                                                                                                  \
    }                                                                                                                  \
    inline void write_##name(word value) { ASM("mov %0, %%" #name ::"r"(value) : "memory"); }
DEFINE_REGISTER(cr0)
DEFINE_REGISTER(cr2)
DEFINE_REGISTER(cr3)
DEFINE_REGISTER(cr4)
DEFINE_REGISTER(dr0)
DEFINE_REGISTER(dr1)
DEFINE_REGISTER(dr2)
DEFINE_REGISTER(dr3)
DEFINE_REGISTER(dr6)
DEFINE_REGISTER(dr7)
#ifdef __x86_64__
DEFINE_REGISTER(cr8)
#endif
#undef DEFINE_REGISTER

inline uint64_t rdmsr(uint32_t index) {
    uint32_t low, high;
    ASM("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return low | uint64_t(high) << 32;
}
inline void wrmsr(uint32_t index, uint64_t value) {
    ASM("wrmsr" ::"c"(index), "a"(uint32_t(value)), "d"(uint32_t(value >> 32)) : "memory");
}
inline uint64_t rdtsc() {
    uint32_t low, high;
    ASM("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return low | uint64_t(high) << 32;
}

struct Cpuid {
    uint32_t a, b, c, d;
};
inline Cpuid cpuid(uint32_t leaf, uint32_t subleaf = 0) {
    Cpuid r;
    ASM("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
    return r;
}
inline bool bit(uint64_t value, unsigned number) { return value >> number & 1; }

inline word flags() {
    word value;
#ifdef __x86_64__
    ASM("pushfq; popq %0" : "=r"(value)::"memory");
#else
    ASM("pushfl; popl %0" : "=r"(value)::"memory");
#endif
    return value;
}
inline void set_flags(word value) {
#ifdef __x86_64__
    ASM("pushq %0; popfq" ::"r"(value) : "memory", "cc");
#else
    ASM("pushl %0; popfl" ::"r"(value) : "memory", "cc");
#endif
}
inline void cli() { ASM("cli" ::: "memory"); }
inline void sti() { ASM("sti" ::: "memory"); }
inline void pause() { ASM("pause" ::: "memory"); }
inline void invlpg(word address) { ASM("invlpg (%0)" ::"r"(address) : "memory"); }

struct __attribute__((packed)) TablePointer {
    uint16_t limit;
    word base;
};
inline void lgdt(TablePointer const& p) { ASM("lgdt %0" ::"m"(p)); }
inline void lidt(TablePointer const& p) { ASM("lidt %0" ::"m"(p)); }
inline void ltr(uint16_t selector) { ASM("ltr %0" ::"r"(selector)); }

inline constexpr word CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_NE = 0x20, CR0_WP = 0x10000, CR0_AM = 0x40000,
                      CR0_CD = 0x40000000, CR0_PG = 0x80000000;
inline constexpr word CR4_VME = 1, CR4_PVI = 2, CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 0x10, CR4_PAE = 0x20, CR4_PGE = 0x80,
                      CR4_PCE = 0x100, CR4_OSFXSR = 0x200, CR4_UMIP = 0x800, CR4_FSGSBASE = 0x10000,
                      CR4_PCIDE = 0x20000, CR4_OSXSAVE = 0x40000, CR4_SMEP = 0x100000, CR4_SMAP = 0x200000;
inline constexpr word FLAG_CF = 1, FLAG_ZF = 0x40, FLAG_TF = 0x100, FLAG_IF = 0x200, FLAG_DF = 0x400,
                      FLAG_IOPL = 0x3000, FLAG_NT = 0x4000, FLAG_RF = 0x10000, FLAG_VM = 0x20000, FLAG_AC = 0x40000,
                      FLAG_VIF = 0x80000, FLAG_VIP = 0x100000, FLAG_ID = 0x200000;
enum Vector : unsigned {
    DE = 0,
    DB = 1,
    NMI = 2,
    BP = 3,
    OF = 4,
    BR = 5,
    UD = 6,
    NM = 7,
    DF = 8,
    TS = 10,
    NP = 11,
    SS = 12,
    GP = 13,
    PF = 14,
    MF = 16,
    AC = 17,
    XM = 19
};
inline constexpr unsigned USER_RETURN = 0x40; // raised by a ring-3 function's return
