// Exceptions in long mode: each vector that can be provoked, its error code, saved address and flags, stacks (IST),
// nesting, double fault.
#include "runtime/guest.h"

namespace {
uint8_t alternate_stack[8192] __attribute__((aligned(16)));
unsigned count;
word seen_sp;
} // namespace

CASE(divide_error_points_at_the_instruction) {
    Fault f = attempt([] {
        ASM("xor %%edx, %%edx; xor %%ecx, %%ecx; mov $1, %%eax; .globl the_div\nthe_div: div %%ecx" ::
                : "eax", "ecx", "edx");
    });
    word at;
    ASM("lea the_div(%%rip), %0" : "=r"(at));
    CHECK_EQ(f.vector, DE);
    CHECK_EQ(f.error, 0);
    CHECK_EQ(f.ip, at);
}

CASE(divide_overflow_is_a_divide_error) {
    Fault f = attempt([] { ASM("mov $0x80000000, %%eax; cdq; mov $-1, %%ecx; idiv %%ecx" ::: "eax", "ecx", "edx"); });
    CHECK_EQ(f.vector, DE);
    f = attempt([] { ASM("mov $0x1000, %%eax; mov $1, %%ecx; div %%cl" ::: "eax", "ecx", "edx"); });
    CHECK_EQ(f.vector, DE);
}

CASE(breakpoint_is_a_trap) {
    Fault f = attempt([] { ASM("int3; .globl after_int3\nafter_int3: nop"); });
    word at;
    ASM("lea after_int3(%%rip), %0" : "=r"(at));
    CHECK_EQ(f.vector, BP);
    CHECK_EQ(f.ip, at);
    CHECK(!(f.flags & FLAG_RF));
}

CASE(undefined_opcodes) {
    CHECK_EQ(attempt([] { ASM("ud2"); }).vector, UD);
    CHECK_EQ(attempt([] { ASM(".byte 0x0f, 0xff, 0xc0"); }).vector, UD); // UD0
    CHECK_EQ(attempt([] { ASM(".byte 0x0f, 0xb9, 0xc0"); }).vector, UD); // UD1
    static uint8_t const removed[] = {0x06, 0x0e, 0x16, 0x1e, 0x07, 0x17, 0x1f, 0x27, 0x2f, 0x37,
                                      0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea};
    for (uint8_t opcode : removed) {
        static uint8_t code[16] __attribute__((aligned(16)));
        memset(code, 0x90, sizeof code);
        code[0] = opcode;
        code[15] = 0xc3;
        Fault f = attempt([] { ASM("call *%0" ::"r"(code) : "rax", "memory"); });
        CHECK_EQ(f.vector, UD);
        CHECK_EQ(f.ip, word(code));
    }
    Fault f = attempt([] { ASM(".byte 0x8d, 0xc0"); }); // LEA with a register operand
    CHECK_EQ(f.vector, UD);
}

CASE(device_not_available_follows_ts_em_mp) {
    write_cr0(read_cr0() | CR0_TS);
    CHECK_EQ(attempt([] { ASM("fnop"); }).vector, NM);
    CHECK_EQ(attempt([] { ASM("xorps %xmm0, %xmm0"); }).vector, NM);
    CHECK_EQ(attempt([] { ASM("fwait"); }).vector, NM);
    write_cr0(read_cr0() & ~CR0_MP);
    CHECK_EQ(attempt([] { ASM("fwait"); }).vector, NONE);
    ASM("clts");
    write_cr0(read_cr0() | CR0_EM);
    CHECK_EQ(attempt([] { ASM("fnop"); }).vector, NM);
    CHECK_EQ(attempt([] { ASM("xorps %xmm0, %xmm0"); }).vector, UD);
    write_cr0((read_cr0() & ~CR0_EM) | CR0_MP);
}

CASE(simd_without_osfxsr_is_undefined) {
    write_cr4(read_cr4() & ~CR4_OSFXSR);
    CHECK_EQ(attempt([] { ASM("xorps %xmm0, %xmm0"); }).vector, UD);
    write_cr4(read_cr4() | CR4_OSFXSR);
    CHECK_EQ(attempt([] { ASM("xorps %xmm0, %xmm0"); }).vector, NONE);
}

CASE(simd_floating_point_exception) {
    static uint32_t const unmasked_divide = 0x1f80 & ~0x200u, masked = 0x1f80;
    static uint32_t one = 0x3f800000, zero = 0, state;
    Fault f = attempt(
        [] { ASM("ldmxcsr %0; movss %1, %%xmm0; divss %2, %%xmm0" ::"m"(unmasked_divide), "m"(one), "m"(zero)); });
    CHECK_EQ(f.vector, XM);
    ASM("stmxcsr %0" : "=m"(state));
    CHECK_EQ(state & 0x3f, 4);
    write_cr4(read_cr4() & ~word(0x400)); // OSXMMEXCPT off: #UD instead
    f = attempt(
        [] { ASM("ldmxcsr %0; movss %1, %%xmm0; divss %2, %%xmm0" ::"m"(unmasked_divide), "m"(one), "m"(zero)); });
    CHECK_EQ(f.vector, UD);
    write_cr4(read_cr4() | 0x400);
    ASM("ldmxcsr %0" ::"m"(masked));
}

CASE(selector_errors_carry_the_selector) {
    Fault f = attempt([] { ASM("mov %0, %%ds" ::"r"(0x1f8 + 8)); }); // beyond the limit
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0x200);
    gdt()[FREE_SLOT] = segment(0, 0xfffff, 0x13, 0xc); // not present data
    f = attempt([] { ASM("mov %0, %%ds" ::"r"(FREE_SLOT * 8)); });
    CHECK_EQ(f.vector, NP);
    CHECK_EQ(f.error, FREE_SLOT * 8);
    f = attempt([] { ASM("mov %0, %%ss" ::"r"(FREE_SLOT * 8)); });
    CHECK_EQ(f.vector, SS);
    CHECK_EQ(f.error, FREE_SLOT * 8);
    f = attempt([] { ASM("mov %0, %%ss" ::"r"(KERNEL_CS)); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, KERNEL_CS);
    f = attempt([] { ASM("mov %0, %%ds" ::"r"(0xc)); }); // LDT selector without an LDT
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0xc);
}

CASE(null_selectors_in_long_mode) {
    CHECK_EQ(attempt([] { ASM("mov %0, %%ds; mov (%1), %0" ::"r"(0), "r"(&count)); }).vector, NONE);
    CHECK_EQ(attempt([] { ASM("mov %0, %%ss; push %1; pop %1" ::"r"(0), "r"(0l)); }).vector, NONE);
    Fault f = attempt([] { ASM("mov %0, %%ss" ::"r"(3)); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
}

CASE(non_canonical_addresses) {
    word bad = 0x1000000000000;
    Fault f = attempt([&] { ASM("mov (%0), %%eax" ::"r"(bad) : "eax"); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    static unsigned const own_stack[] = {SS, GP, DF}; // the stack itself is bad
    tss()->ist[0] = word(alternate_stack + sizeof alternate_stack);
    for (unsigned vector : own_stack) set_gate(vector, stub_address(vector), 0x8e, 1);
    f = attempt([&] { ASM("mov %%rsp, %%rbx; mov %0, %%rsp; push %%rax; mov %%rbx, %%rsp" ::"r"(bad) : "rbx"); });
    CHECK_EQ(f.vector, SS);
    CHECK_EQ(f.error, 0);
    f = attempt([&] { ASM("mov %0, %%rbp; mov (%%rbp), %%eax" ::"r"(bad) : "eax"); });
    CHECK_EQ(f.vector, SS);
    reload_tables();
    // Intel faults at the jump, AMD at its target.
    f = attempt([&] { ASM("jmp *%0" ::"r"(bad)); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    f = attempt([&] { ASM("push %0; ret" ::"r"(bad)); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
}

CASE(int_n_needs_the_gate_to_allow_it) {
    set_gate(0x50, stub_address(0x50), 0xee);
    Fault f = run_user([](word) -> word {
        ASM("int $0x50");
        return 0;
    });
    CHECK_EQ(f.vector, 0x50);
    CHECK_EQ(f.cs, USER_CS);
    CHECK_EQ(f.ss, USER_DS);
    f = run_user([](word) -> word {
        ASM("int $0x51");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0x51 * 8 + 2);
    f = run_user([](word) -> word {
        ASM("int $13");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 13 * 8 + 2);
    set_gate(0x52, stub_address(0x52), 0x0e); // not present
    f = attempt([] { ASM("int $0x52"); });
    CHECK_EQ(f.vector, NP);
    CHECK_EQ(f.error, 0x52 * 8 + 2);
    set_gate(0x52, stub_address(0x52), 0x8e, 0, KERNEL_DS); // not code
    f = attempt([] { ASM("int $0x52"); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, KERNEL_DS);
    reload_tables();
    f = run_user([](word) -> word {
        ASM("int3");
        return 0;
    });
    CHECK_EQ(f.vector, GP); // the gate of #BP has DPL 0
    CHECK_EQ(f.error, 3 * 8 + 2);
}

CASE(a_vector_beyond_the_idt_limit) {
    lidt({0x50 * 16 - 1, word(idt())});
    Fault f = attempt([] { ASM("int $0x50"); });
    reload_tables();
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0x50 * 8 + 2);
}

CASE(ist_switches_stacks_at_the_same_level) {
    set_handler(UD, [](Frame* f) {
        seen_sp = word(f);
        f->ip += 2;
    });
    tss()->ist[2] = word(alternate_stack + sizeof alternate_stack - 8); // aligned down on entry
    set_gate(UD, stub_address(UD), 0x8e, 3);
    word before;
    ASM("mov %%rsp, %0; ud2" : "=r"(before)::"memory");
    CHECK(seen_sp >= word(alternate_stack) && seen_sp < word(alternate_stack) + sizeof alternate_stack);
    CHECK_EQ((seen_sp + sizeof(Frame)) & 15, 0);
    reload_tables();
    ASM("ud2" ::: "memory");
    CHECK(seen_sp < before && seen_sp > before - 4096);
    CHECK_EQ((seen_sp + sizeof(Frame)) & 15, 0); // long mode aligns the frame without IST too
    set_handler(UD, nullptr);
}

CASE(interrupt_gates_clear_if_trap_gates_do_not) {
    static word inside;
    Handler look = [](Frame*) { inside = flags(); };
    set_handler(0x60, look);
    ASM("sti; int $0x60; cli" ::: "memory");
    CHECK(!(inside & FLAG_IF));
    set_gate(0x60, stub_address(0x60), 0x8f);
    ASM("sti; int $0x60; cli" ::: "memory");
    CHECK(inside & FLAG_IF);
    set_flags(flags() | FLAG_NT);
    ASM("int $0x60" ::: "memory");
    CHECK(!(inside & FLAG_NT));
    set_flags(2);
    set_handler(0x60, nullptr);
    reload_tables();
}

CASE(nested_exceptions_unwind) {
    set_handler(UD, [](Frame* f) {
        ++count;
        ASM("int3" ::: "memory");
        f->ip += 2;
    });
    set_handler(BP, [](Frame*) { ++count; });
    count = 0;
    ASM("ud2" ::: "memory");
    CHECK_EQ(count, 2);
    set_handler(UD, nullptr);
    set_handler(BP, nullptr);
}

CASE(contributory_faults_make_a_double_fault) {
    set_gate(GP, stub_address(GP), 0x0e); // #GP not present: #NP while delivering #GP
    Fault f = attempt([] { ASM("mov %0, %%ds" ::"r"(0x200)); });
    reload_tables();
    CHECK_EQ(f.vector, DF);
    CHECK_EQ(f.error, 0);
}

CASE(a_benign_first_exception_is_no_double_fault) {
    set_gate(UD, stub_address(UD), 0x0e);
    Fault f = attempt([] { ASM("ud2"); });
    CHECK_EQ(f.vector, NP);
    CHECK_EQ(f.error, UD * 8 + 3); // the second exception came from delivering an event: EXT
    reload_tables();
}

CASE(page_fault_while_delivering_a_page_fault) {
    word hole = 0x7000000000; // not mapped
    tss()->ist[0] = hole;
    tss()->ist[1] = word(alternate_stack + sizeof alternate_stack);
    set_gate(PF, stub_address(PF), 0x8e, 1);
    set_gate(DF, stub_address(DF), 0x8e, 2);
    Fault f = attempt([&] { ASM("mov (%0), %%eax" ::"r"(hole + 0x2000) : "eax"); });
    CHECK_EQ(f.vector, DF);
    CHECK(f.cr2 < hole && f.cr2 >= hole - 0x30); // which of the frame's words is written first is the CPU's choice
    set_gate(UD, stub_address(UD), 0x8e, 1);     // benign, then page fault: the page fault is delivered
    set_gate(PF, stub_address(PF), 0x8e, 0);
    f = attempt([] { ASM("ud2"); });
    CHECK_EQ(f.vector, PF);
    CHECK_EQ(f.error, 2);
    CHECK(f.cr2 < hole && f.cr2 >= hole - 0x30); // which of the frame's words is written first is the CPU's choice
    reload_tables();
}

CASE(faults_save_rf_and_traps_do_not) {
    Fault f = attempt([] { ASM("ud2"); });
    CHECK(f.flags & FLAG_RF);
    f = attempt([] { ASM("int $0x61"); });
    CHECK(!(f.flags & FLAG_RF));
}

CASE(privileged_instructions_in_ring_3) {
    Fault f = run_user([](word) -> word {
        ASM("hlt");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("mov %%cr0, %%rax" ::: "rax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("mov %%rax, %%cr3" ::: "rax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("mov %%rax, %%dr7" ::: "rax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("rdmsr" ::: "eax", "edx");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("wrmsr");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("invlpg (%rax)");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("wbinvd");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("clts");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("ltr %ax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("lldt %ax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("lmsw %ax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("swapgs");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("in $0x80, %%al" ::: "eax");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("sti");
                 return 0;
             }).vector,
             GP);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("sysretq");
                 return 0;
             }).vector,
             GP);
}

CASE(iopl_and_the_port_bitmap) {
    word (*in80)(word) = [](word) -> word {
        ASM("in $0x80, %%al; in $0x80, %%ax" ::: "eax");
        return 0;
    };
    CHECK_EQ(run_user(in80, 0, 2 | FLAG_IOPL).vector, USER_RETURN);
    CHECK_EQ(run_user(
                 [](word) -> word {
                     ASM("sti; cli");
                     return 0;
                 },
                 0, 2 | FLAG_IOPL)
                 .vector,
             USER_RETURN);
    Fault f = run_user([](word) -> word { // POPF in ring 3 leaves IOPL, and IF when CPL > IOPL
        ASM("pushq $0x3202; popfq");
        return flags() & (FLAG_IF | FLAG_IOPL);
    });
    CHECK_EQ(f.ax, 0);
    memset(tss()->bitmap, 0xff, sizeof tss()->bitmap);
    tss()->bitmap[0x80 / 8] = 0xfe;
    tss()->io_map = uint16_t(offsetof(Tss, bitmap));
    CHECK_EQ(run_user([](word) -> word {
                 ASM("in $0x80, %%al" ::: "eax");
                 return 0;
             }).vector,
             USER_RETURN);
    CHECK_EQ(run_user(in80).vector, GP); // the second port of the word is forbidden
    CHECK_EQ(run_user([](word) -> word {
                 ASM("in $0x81, %%al" ::: "eax");
                 return 0;
             }).vector,
             GP);
    reload_tables();
}

CASE(instructions_longer_than_15_bytes) {
    static uint8_t code[20];
    memset(code, 0x66, 14);
    code[14] = 0x90;
    code[15] = 0xc3;
    CHECK_EQ(attempt([] { ASM("call *%0" ::"r"(code) : "memory"); }).vector, NONE);
    memset(code, 0x66, 15);
    code[15] = 0x90;
    code[16] = 0xc3;
    Fault f = attempt([] { ASM("call *%0" ::"r"(code) : "memory"); });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
}
