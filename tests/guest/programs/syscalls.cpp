// SYSCALL, SYSENTER and their returns, SWAPGS and FSGSBASE, with what they load, save and refuse.
#include "runtime/guest.h"

namespace {
constexpr uint32_t EFER = 0xc0000080, STAR = 0xc0000081, LSTAR = 0xc0000082, CSTAR = 0xc0000083, SFMASK = 0xc0000084,
                   FS_BASE = 0xc0000100, GS_BASE = 0xc0000101, KERNEL_GS_BASE = 0xc0000102, SYSENTER_CS = 0x174,
                   SYSENTER_ESP = 0x175, SYSENTER_EIP = 0x176;
extern "C" {
void syscall_target();
void sysenter_target();
void syscall_user_code();
void sysenter_user_code();
word saw_rcx, saw_r11, saw_flags, saw_cs, saw_ss, saw_rsp;
}
// The targets note what the instruction left and end the guarded call through a vector of their own.
asm(R"(
.text
syscall_target:
    mov %rcx, saw_rcx(%rip)
    mov %r11, saw_r11(%rip)
    mov %rsp, saw_rsp(%rip)
    mov %cs, %ecx
    mov %rcx, saw_cs(%rip)
    mov %ss, %ecx
    mov %rcx, saw_ss(%rip)
    lea stack_top-16384(%rip), %rsp
    pushfq
    pop saw_flags(%rip)
    int $0x70
sysenter_target:
    mov %rsp, saw_rsp(%rip)
    mov %cs, %ecx
    mov %rcx, saw_cs(%rip)
    mov %ss, %ecx
    mov %rcx, saw_ss(%rip)
    lea stack_top-16384(%rip), %rsp
    pushfq
    pop saw_flags(%rip)
    int $0x71
syscall_user_code:
    syscall
    hlt
sysenter_user_code:
    sysenter
    hlt
)");
void set_up() {
    // SYSCALL: CS 8, SS 0x10. SYSRET: base 0x1b: SS 0x23, 64-bit CS 0x2b, 32-bit CS 0x1b.
    gdt()[3] = segment(0, 0xfffff, 0xfb, 0xc);
    wrmsr(STAR, uint64_t(0x1b) << 48 | uint64_t(KERNEL_CS) << 32);
    wrmsr(LSTAR, word(syscall_target));
    wrmsr(SFMASK, FLAG_IF | FLAG_DF | FLAG_TF | FLAG_CF);
    wrmsr(SYSENTER_CS, KERNEL_CS);
    wrmsr(SYSENTER_ESP, 0x123456789000);
    wrmsr(SYSENTER_EIP, word(sysenter_target));
}
void tidy_up() { reload_tables(); }
} // namespace

CASE(syscall_saves_rip_and_flags_and_masks) {
    set_up();
    Fault f = run_user([](word) -> word {
        ASM("std; stc; jmp syscall_user_code");
        return 0;
    });
    tidy_up();
    CHECK_EQ(f.vector, 0x70);
    CHECK_EQ(saw_rcx, word(syscall_user_code) + USER_OFFSET + 2);
    CHECK_EQ(saw_r11 & (FLAG_DF | FLAG_CF), FLAG_DF | FLAG_CF);
    CHECK_EQ(saw_r11 & FLAG_RF, 0);
    CHECK_EQ(saw_flags & (FLAG_DF | FLAG_CF), 0);
    CHECK_EQ(saw_cs, KERNEL_CS);
    CHECK_EQ(saw_ss, KERNEL_DS);
    CHECK(saw_rsp > USER_OFFSET); // the stack is the user's still
}

CASE(syscall_without_sce_is_undefined) {
    set_up();
    wrmsr(EFER, rdmsr(EFER) & ~uint64_t(1));
    Fault f = run_user([](word) -> word {
        ASM("jmp syscall_user_code");
        return 0;
    });
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(attempt([] { ASM("xor %ecx, %ecx; sysretq"); }).vector, UD);
    wrmsr(EFER, rdmsr(EFER) | 1);
    tidy_up();
}

CASE(sysret_loads_fixed_user_segments) {
    set_up();
    static word seen[3];
    Fault f = attempt([] {
        ASM("lea 1f(%%rip), %%rcx; add %0, %%rcx; mov $0x247, %%r11d; sysretq\n"
            "1: mov %%cs, %%eax; mov %%ss, %%ebx; int $0x40" ::"r"(USER_OFFSET)
            : "rcx", "r11", "rax", "rbx");
    });
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK_EQ(f.ax, 0x2b);
    CHECK_EQ(f.frame.bx, 0x23);
    CHECK_EQ(f.flags & 0xfff, 0x247);
    CHECK_EQ(f.cs, 0x2b);
    (void)seen;
    f = attempt([] { // to compatibility mode: needs code below 4 GiB that user mode may read, so it faults on the
                     // fetch, in 32-bit user code
        ASM("mov $0x1000, %%ecx; mov $2, %%r11d; sysretl" ::: "rcx", "r11");
    });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.cs, 0x1b);
    CHECK_EQ(f.ip, 0x1000);
    CHECK_EQ(f.error, 0x15);
    tidy_up();
}

CASE(sysret_to_a_non_canonical_address) {
    set_up();
    Fault f = attempt([] { ASM("mov $1, %%ecx; shl $48, %%rcx; mov $2, %%r11d; sysretq" ::: "rcx", "r11"); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    CHECK_EQ(f.cs, KERNEL_CS); // Intel: the fault comes in ring 0
    tidy_up();
}

CASE(sysenter_and_sysexit) {
    set_up();
    Fault f = run_user(
        [](word) -> word {
            ASM("jmp sysenter_user_code");
            return 0;
        },
        0, 2);
    CHECK_EQ(f.vector, 0x71);
    CHECK_EQ(saw_rsp, 0x123456789000);
    CHECK_EQ(saw_cs, KERNEL_CS);
    CHECK_EQ(saw_ss, KERNEL_DS);
    CHECK_EQ(saw_flags & FLAG_IF, 0);
    wrmsr(SYSENTER_CS, 0);
    f = run_user([](word) -> word {
        ASM("jmp sysenter_user_code");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    CHECK_EQ(attempt([] { ASM("sysexitq"); }).vector, GP);
    // SYSEXIT: CS = MSR + 32 (64-bit) or + 16 (32-bit), SS = CS + 8, both with RPL 3.
    wrmsr(SYSENTER_CS, KERNEL_CS);
    gdt()[5] = segment(0, 0xfffff, 0xfb, 0xa); // 0x28
    f = attempt([] {
        ASM("lea 1f(%%rip), %%rdx; add %0, %%rdx; mov %%rsp, %%rcx; sysexitq\n"
            "1: mov %%cs, %%eax; mov %%ss, %%ebx; int $0x40" ::"r"(USER_OFFSET)
            : "rcx", "rdx", "rax", "rbx");
    });
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK_EQ(f.ax, 0x2b);
    CHECK_EQ(f.frame.bx, 0x33);
    f = run_user([](word) -> word {
        ASM("sysexitq");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    tidy_up();
}

CASE(target_msrs_must_be_canonical) {
    CHECK_EQ(attempt([] { wrmsr(LSTAR, uint64_t(1) << 48); }).vector, GP);
    CHECK_EQ(attempt([] { wrmsr(CSTAR, uint64_t(1) << 48); }).vector, GP);
    CHECK_EQ(attempt([] { wrmsr(GS_BASE, uint64_t(1) << 48); }).vector, GP);
    CHECK_EQ(attempt([] { wrmsr(KERNEL_GS_BASE, uint64_t(1) << 48); }).vector, GP);
    CHECK_EQ(attempt([] { wrmsr(SYSENTER_EIP, uint64_t(1) << 48); }).vector, GP);
    wrmsr(LSTAR, 0xffff800000000000);
    CHECK_EQ(rdmsr(LSTAR), 0xffff800000000000);
}

CASE(swapgs_exchanges_the_bases) {
    wrmsr(GS_BASE, 0x1111);
    wrmsr(KERNEL_GS_BASE, 0x2222);
    ASM("swapgs");
    CHECK_EQ(rdmsr(GS_BASE), 0x2222);
    CHECK_EQ(rdmsr(KERNEL_GS_BASE), 0x1111);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("swapgs");
                 return 0;
             }).vector,
             GP);
    static word value = 0x5a5a;
    wrmsr(GS_BASE, word(&value) - 8);
    word seen;
    ASM("mov %%gs:8, %0" : "=r"(seen));
    CHECK_EQ(seen, 0x5a5a);
    wrmsr(GS_BASE, 0);
}

CASE(a_selector_load_sets_the_base_from_the_descriptor) {
    gdt()[FREE_SLOT] = segment(0x12345678, 0xfffff, 0xf3, 0xc);
    wrmsr(FS_BASE, 0x777700000000);
    ASM("mov %0, %%fs" ::"r"(FREE_SLOT * 8));
    CHECK_EQ(rdmsr(FS_BASE), 0x12345678);
    wrmsr(FS_BASE, 0x777700000000);
    CHECK_EQ(rdmsr(FS_BASE), 0x777700000000);
    ASM("mov %0, %%fs" ::"r"(0));
    wrmsr(FS_BASE, 0);
}

CASE(fsgsbase_instructions) {
    if (!bit(cpuid(7).b, 0)) SKIP("no FSGSBASE");
    CHECK_EQ(attempt([] { ASM("rdfsbase %%rax" ::: "rax"); }).vector, UD); // CR4 first
    write_cr4(read_cr4() | CR4_FSGSBASE);
    word seen;
    ASM("wrfsbase %1; rdfsbase %0" : "=r"(seen) : "r"(0x123456789abl));
    CHECK_EQ(seen, 0x123456789ab);
    CHECK_EQ(rdmsr(FS_BASE), 0x123456789ab);
    ASM("mov $-1, %%rax; wrgsbase %%eax; rdgsbase %0" : "=r"(seen)::"rax");
    CHECK_EQ(seen, 0xffffffff);
    CHECK_EQ(attempt([] { ASM("wrgsbase %0" ::"r"(word(1) << 48)); }).vector, GP);
    CHECK_EQ(run_user([](word) -> word {
                 word v;
                 ASM("mov $0x77, %%eax; wrfsbase %%rax; rdfsbase %0" : "=r"(v)::"rax");
                 return v;
             }).ax,
             0x77);
    write_cr4(read_cr4() & ~CR4_FSGSBASE);
    wrmsr(FS_BASE, 0);
    wrmsr(GS_BASE, 0);
}
