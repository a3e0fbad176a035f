// Gates and far transfers in long mode: 64-bit call gates, far returns and IRET between rings and to compatibility
// mode, data in compatibility mode, tables with 64-bit descriptors.
#include "runtime/guest.h"

namespace {
constexpr unsigned S = FREE_SLOT, SELECTOR = S * 8;
void set_call_gate(uint16_t selector, word offset, uint8_t access) {
    gdt()[S] = gate(selector, uint32_t(offset), access);
    gdt()[S + 1] = offset >> 32;
}
struct __attribute__((packed)) FarPointer {
    uint32_t offset;
    uint16_t selector;
};
extern "C" {
void landing64();
void gate_entry64();
void compatibility_code();
void compatibility_end();
word gate_words[6], gate_cs, gate_ss;
}
asm(R"(
.text
landing64:
    mov %cs, %eax
    int $0x48
gate_entry64:
    mov %cs, %eax
    mov %rax, gate_cs(%rip)
    mov %ss, %eax
    mov %rax, gate_ss(%rip)
    mov (%rsp), %rax
    mov %rax, gate_words(%rip)
    mov 8(%rsp), %rax
    mov %rax, gate_words+8(%rip)
    mov 16(%rsp), %rax
    mov %rax, gate_words+16(%rip)
    mov 24(%rsp), %rax
    mov %rax, gate_words+24(%rip)
    lretq
.code32
compatibility_code:             # ring 0, 32-bit: the address wraps at 4 GiB, 0x40 is INC EAX
    mov $0xffffffff, %eax
    inc %eax
    mov %cs, %ebx
    mov $0x12345678, %ecx
    push %ecx
    pop %edx
    int $0x47
compatibility_end:
.code64
)");
Fault far_call(uint16_t selector) {
    FarPointer target = {0xdead, selector};
    return attempt([&] { ASM("lcall *%0" ::"m"(target) : "rax", "memory"); });
}
Fault far_jump(uint16_t selector, word offset) {
    FarPointer target = {uint32_t(offset), selector};
    return attempt([&] { ASM("ljmp *%0" ::"m"(target) : "rax", "memory"); });
}
} // namespace

CASE(a_call_gate_to_the_same_ring) {
    set_call_gate(KERNEL_CS, word(gate_entry64), 0x8c);
    CHECK_EQ(far_call(SELECTOR).vector, NONE);
    CHECK_EQ(gate_cs, KERNEL_CS);
    CHECK_EQ(gate_words[1], KERNEL_CS);
    set_call_gate(KERNEL_CS32, word(gate_entry64), 0x8c); // the code must be 64-bit
    Fault f = far_call(SELECTOR);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, KERNEL_CS32);
    set_call_gate(KERNEL_CS, word(gate_entry64), 0x0c);
    f = far_call(SELECTOR);
    CHECK_EQ(f.vector, NP);
    CHECK_EQ(f.error, SELECTOR);
    set_call_gate(KERNEL_CS, word(1) << 48, 0x8c);
    CHECK_EQ(far_call(SELECTOR).vector, GP);
    set_call_gate(KERNEL_CS, word(gate_entry64), 0x8c);
    gdt()[S + 1] |= uint64_t(0xf) << 40; // the type of the upper half must be 0
    f = far_call(SELECTOR);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, SELECTOR);
    gdt()[S] = gate(KERNEL_CS, 0, 0x84); // no 16-bit gates in long mode
    CHECK_EQ(far_call(SELECTOR).vector, GP);
    gdt()[S] = gate(KERNEL_CS, 0, 0x85); // no task gates
    CHECK_EQ(far_call(SELECTOR).vector, GP);
    gdt()[S] = segment(0, 103, 0x89, 0); // no task switches
    gdt()[S + 1] = 0;
    CHECK_EQ(far_call(SELECTOR).vector, GP);
}

CASE(a_call_gate_to_an_inner_ring_and_back) {
    set_call_gate(KERNEL_CS, word(gate_entry64), 0xec);
    Fault f = run_user([](word) -> word {
        FarPointer target = {0, FREE_SLOT * 8};
        word before, after;
        ASM("mov %%rsp, %0; lcall *%2; mov %%rsp, %1" : "=&r"(before), "=&r"(after) : "m"(target) : "rax", "memory");
        return before - after;
    });
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK_EQ(f.ax, 0);
    CHECK_EQ(gate_cs, KERNEL_CS);
    CHECK_EQ(gate_ss, 0); // SS is null with RPL 0 in the inner ring
    CHECK_EQ(gate_words[1], USER_CS);
    CHECK_EQ(gate_words[3], USER_DS);
    CHECK(gate_words[0] > USER_OFFSET);
}

CASE(far_jumps_and_returns) {
    CHECK_EQ(far_jump(KERNEL_CS, word(landing64)).vector, 0x48);
    CHECK_EQ(far_jump(0, 0).vector, GP);
    gdt()[S] = segment(0, 0xfffff, 0x9b, 0xe); // L and D together are reserved
    Fault f = far_jump(SELECTOR, word(landing64));
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, SELECTOR);
    f = attempt([] { ASM("pushq %0; pushq %1; lretq" ::"i"(USER_CS), "r"(word(1) << 48)); });
    CHECK_EQ(f.vector, GP);
    f = attempt([] { ASM("pushq $0x10; pushq $0; lretq"); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0x10);
    CHECK_EQ(attempt([] { ASM(".byte 0xea, 0, 0, 0, 0, 8, 0"); }).vector, UD);
}

CASE(compatibility_mode_runs_32_bit_code) {
    Fault f = far_jump(KERNEL_CS32, word(compatibility_code));
    CHECK_EQ(f.vector, 0x47);
    CHECK_EQ(f.ax, 0);
    CHECK_EQ(f.frame.bx, KERNEL_CS32);
    CHECK_EQ(f.frame.dx, 0x12345678);
    CHECK_EQ(f.ip, word(compatibility_end));
    CHECK_EQ(f.cs, KERNEL_CS32);
    gdt()[S] = segment(0, 0xfffff, 0x9b, 0x8); // 16-bit code, 64-bit mode off: the same bytes mean something else
    static uint8_t const code16[] = {0xb8, 0x34, 0x12, 0xcd, 0x46}; // mov ax, 0x1234; int 0x46
    uint8_t* low = reinterpret_cast<uint8_t*>(0x7000);
    memcpy(low, code16, sizeof code16);
    f = far_jump(SELECTOR, 0x7000);
    CHECK_EQ(f.vector, 0x46);
    CHECK_EQ(f.ax & 0xffff, 0x1234);
    CHECK_EQ(f.ip, 0x7005);
}

CASE(compatibility_mode_has_limits_again) {
    gdt()[S] = segment(0, 0xf, 0x93, 0x4);
    static uint8_t const code[] = {0xb8, S * 8, 0,    0, 0, 0x8e,
                                   0xd8, 0xa0,  0x10, 0, 0, 0}; // mov eax, SELECTOR; mov ds, eax; mov al, [0x10]
    uint8_t* low = reinterpret_cast<uint8_t*>(0x7000);
    memcpy(low, code, sizeof code);
    Fault f = far_jump(KERNEL_CS32, 0x7000);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.ip, 0x7007);
    uint32_t value; // 64-bit code sees no limit in DS
    ASM("mov %1, %%ds; mov 0x7000, %0" : "=r"(value) : "r"(SELECTOR));
    CHECK_EQ(value & 0xff, 0xb8);
}

CASE(iret_frames_in_long_mode) {
    static word sp_after;
    // IRETQ pops SS:RSP even without a change of ring.
    ASM("mov %%rsp, %%rbx; lea -64(%%rsp), %%rcx; mov %%ss, %%eax; push %%rax; push %%rcx; pushfq; push %1; lea "
        "1f(%%rip), %%rax; push %%rax; iretq\n"
        "1: mov %%rsp, %0; mov %%rbx, %%rsp"
        : "=m"(sp_after)
        : "i"(KERNEL_CS)
        : "rax", "rbx", "rcx", "memory");
    word now;
    ASM("mov %%rsp, %0" : "=r"(now));
    CHECK_EQ(now - sp_after, 64);
    set_flags(flags() | FLAG_NT); // IRET with NT faults in long mode
    Fault f = attempt([] { ASM("iretq"); });
    set_flags(2);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    f = attempt(
        [] { ASM("push $0; push $0; push $2; push %0; push $0; iretq" ::"i"(USER_CS)); }); // a null SS to ring 3
    CHECK_EQ(f.vector, GP);
    f = attempt([] {
        ASM("push %1; push $0; push $2; push %0; push $0; iretq" ::"i"(KERNEL_CS), "i"(USER_DS));
    }); // SS DPL is not CPL
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, USER_DS & ~3);
}

CASE(iret_to_32_bit_user_code) {
    // 32-bit user code: base so that the user alias is reached is not possible (its address needs 64 bits), so the
    // fetch faults there.
    Fault f = attempt([] { ASM("push $0x23; push $0x2000; push $2; push $0x1b; push $0x1000; iretq"); });
    CHECK_EQ(f.vector, GP); // slot 3 is ring 0 code
    gdt()[3] = segment(0, 0xfffff, 0xfb, 0xc);
    f = attempt([] { ASM("push $0x23; push $0x2000; push $2; push $0x1b; push $0x1000; iretq"); });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.error, 0x15);
    CHECK_EQ(f.cs, 0x1b);
    CHECK_EQ(f.sp, 0x2000);
    reload_tables();
}

CASE(lar_and_lsl_in_long_mode) {
    bool ok;
    uint32_t value;
    ASM("lar %2, %0; setz %1" : "=r"(value), "=q"(ok) : "r"(uint32_t(KERNEL_CS)) : "cc");
    CHECK(ok);
    CHECK_EQ(value, 0x00af9b00);
    ASM("lsl %2, %0; setz %1" : "=r"(value), "=q"(ok) : "r"(uint32_t(TSS_SELECTOR)) : "cc");
    CHECK(ok);
    CHECK_EQ(value, sizeof(Tss) - 1);
    gdt()[S] = gate(8, 0, 0x85);
    ASM("lar %2, %0; setz %1" : "=r"(value), "=q"(ok) : "r"(SELECTOR) : "cc");
    CHECK(!ok); // a task gate is nothing in long mode
}

CASE(ltr_and_lldt_take_16_byte_descriptors) {
    static Tss another;
    gdt()[S] = segment(uint32_t(word(&another)), sizeof another - 1, 0x89, 0);
    gdt()[S + 1] = 0;
    CHECK_EQ(attempt([] { ltr(SELECTOR); }).vector, NONE);
    CHECK_EQ(gdt()[S] >> 40 & 0xff, 0x8b);
    Fault f = attempt([] { ltr(SELECTOR); });
    CHECK_EQ(f.vector, GP); // busy
    CHECK_EQ(f.error, SELECTOR);
    gdt()[S] = segment(0, 103, 0x81, 0); // a 16-bit TSS
    CHECK_EQ(attempt([] { ltr(SELECTOR); }).vector, GP);
    CHECK_EQ(attempt([] { ltr(0); }).vector, GP);
    reload_tables();
}
