// Between the modes: 32-bit protected to 16-bit protected to real mode and back, big real mode, real-mode interrupts
// and faults.
#include "runtime/guest.h"

namespace {
constexpr unsigned CODE16 = FREE_SLOT, DATA16 = FREE_SLOT + 1;
extern "C" {
void go_real();
extern char real_begin[], real_end[];
}
// What the real-mode code leaves at 0x6000.
struct Results {
    uint32_t cs, flat, interrupt, fault_ip, segment, smsw, wrapped, esp_high, fault_count, int_flags;
};
Results volatile& results() { return *reinterpret_cast<Results volatile*>(0x6000); }

asm(R"(
.text
go_real:
    pusha
    mov %esp, saved_stack
    lidt real_idt
    ljmp $0x40, $0x7000
.code16
real_begin:
    mov $0x48, %ax              # 64 KiB data, so that real mode starts with ordinary limits; FS keeps 4 GiB
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %cr0, %eax
    and $~1, %al
    mov %eax, %cr0
    ljmp $0, $(0x7000 + 1f - real_begin)
1:  xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x6f00, %esp
    mov %cs, %ax
    movzwl %ax, %eax
    mov %eax, 0x6000
    mov $0x100000, %esi         # beyond 64 KiB through FS, whose limit outlived the switch
    addr32 mov %fs:(%esi), %eax
    mov %eax, 0x6004
    sti
    int $0x60
    cli
    mov 0xffff, %ax             # a word across the limit: #GP through the interrupt table, which skips it
    mov $0x1234, %ax
    mov %ax, %ds
    mov 0, %eax
    xor %bx, %bx
    mov %bx, %ds
    mov %eax, 0x6010
    smsw %ax
    movzwl %ax, %eax
    mov %eax, 0x6014
    mov $0xffff, %bx            # BX + 2 wraps in a 16-bit address
    mov 1(%bx), %al
    movzbl %al, %eax
    mov %eax, 0x6018
    pushw $1
    mov %esp, 0x601c
    popw %ax
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x08, $back_to_32
real_interrupt:
    pushf
    popw %cs:0x6024
    movl $0x1234, %cs:0x6008
    iret
real_fault:
    push %bp
    mov %sp, %bp
    mov 2(%bp), %ax
    movzwl %ax, %eax
    mov %eax, %cs:0x600c
    incl %cs:0x6020
    addw $3, 2(%bp)
    pop %bp
    iret
real_end:
.code32
back_to_32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov saved_stack, %esp
    popa
    ret
.data
saved_stack: .long 0
real_idt: .word 0x3ff
    .long 0
.text
.globl real_interrupt_offset, real_fault_offset
.equ real_interrupt_offset, real_interrupt - real_begin
.equ real_fault_offset, real_fault - real_begin
)");
} // namespace

#define OFFSET(name)                                                                                                   \
    ({                                                                                                                 \
        word at_;                                                                                                      \
        ASM("mov $" #name ", %0" : "=r"(at_));                                                                         \
        at_;                                                                                                           \
    })

CASE(to_real_mode_and_back) {
    gdt()[CODE16] = segment(0, 0xffff, 0x9b, 0);
    gdt()[DATA16] = segment(0, 0xffff, 0x93, 0);
    memcpy(reinterpret_cast<void*>(0x7000), real_begin, size_t(real_end - real_begin));
    memset(reinterpret_cast<void*>(0x6000), 0, 256);
    auto table = reinterpret_cast<uint32_t volatile*>(word(0) + 0);
    ASM("" : "+r"(table));
    uint32_t old60 = table[0x60], old13 = table[13];
    table[0x60] = 0x7000 + OFFSET(real_interrupt_offset);
    table[13] = 0x7000 + OFFSET(real_fault_offset);
    *reinterpret_cast<uint32_t volatile*>(0x12340) = 0xfeedbeef;
    go_real();
    table[0x60] = old60;
    table[13] = old13;
    reload_tables();
    CHECK_EQ(results().cs, 0);
    CHECK_EQ(results().flat, 0x1BADB002);
    CHECK_EQ(results().interrupt, 0x1234);
    CHECK_EQ(results().int_flags & FLAG_IF, 0);
    CHECK_EQ(results().fault_count, 1);
    CHECK_EQ(*reinterpret_cast<uint8_t*>(results().fault_ip), 0xa1);
    CHECK_EQ(results().segment, 0xfeedbeef);
    CHECK_EQ(results().smsw & 1, 0);
    CHECK_EQ(results().wrapped, *reinterpret_cast<uint8_t volatile*>(word(table)));
    CHECK_EQ(results().esp_high, 0x6efe);
}

CASE(protected_mode_works_after_the_round_trip) {
    CHECK_EQ(attempt([] { ASM("ud2"); }).vector, UD);
    CHECK_EQ(run_user([](word n) -> word { return n + 1; }, 4).ax, 5);
}

CASE(sixteen_bit_protected_code) {
    gdt()[CODE16] = segment(0, 0xffff, 0x9b, 0);
    static uint8_t const code[] = {0xb8, 0x34, 0x12, 0x66, 0xbb, 1,    2, 3,    4,   0x67,
                                   0x66, 0x8b, 0x0d, 0,    0,    0x10, 0, 0xcd, 0x46};
    memcpy(reinterpret_cast<void*>(0x7000), code, sizeof code); // mov ax; mov ebx; mov ecx, [0x100000]; int 0x46
    Fault f = attempt([] { ASM("ljmp $0x40, $0x7000"); });
    CHECK_EQ(f.vector, 0x46);
    CHECK_EQ(f.cs, CODE16 * 8);
    CHECK_EQ(f.ax & 0xffff, 0x1234);
    CHECK_EQ(f.frame.bx, 0x04030201);
    CHECK_EQ(f.frame.cx, 0x1BADB002);
    CHECK_EQ(f.ip, 0x7000 + sizeof code);
}
