// Segmentation in 32-bit protected mode: limits, expand-down, rights, null selectors, conforming code, far transfers,
// call gates, returns to outer rings, LAR LSL VERR VERW. Errors are as the SDM's instruction pages say.
#include "runtime/guest.h"

namespace {
constexpr unsigned S = FREE_SLOT, SELECTOR = S * 8;
uint8_t bytes[256] __attribute__((aligned(256)));
void describe(uint32_t base, uint32_t limit, uint8_t access, uint8_t flag_bits, unsigned slot = S) {
    gdt()[slot] = segment(base, limit, access, flag_bits);
}
Fault load_ds(unsigned selector) {
    return attempt([=] { ASM("mov %0, %%ds; mov %%ss, %0; mov %0, %%ds" ::"r"(selector)); });
}
Fault load_ss(unsigned selector) {
    return attempt([=] { ASM("mov %%ss, %%edx; mov %0, %%ss; mov %%edx, %%ss" ::"r"(selector) : "edx"); });
}
Fault touch_fs(unsigned offset, unsigned size, bool write) {
    return attempt([=] {
        ASM("mov %0, %%fs" ::"r"(SELECTOR));
        if (size == 1 && !write) ASM("movb %%fs:(%0), %%al" ::"r"(offset) : "eax");
        if (size == 4 && !write) ASM("movl %%fs:(%0), %%eax" ::"r"(offset) : "eax");
        if (size == 8 && !write) ASM("fldl %%fs:(%0); fstp %%st(0)" ::"r"(offset));
        if (size == 1 && write) ASM("movb $7, %%fs:(%0)" ::"r"(offset) : "memory");
        if (size == 4 && write) ASM("movl $7, %%fs:(%0)" ::"r"(offset) : "memory");
    });
}
#define GP0(fault)                                                                                                     \
    do {                                                                                                               \
        Fault fault_ = (fault);                                                                                        \
        CHECK_EQ(fault_.vector, GP);                                                                                   \
        CHECK_EQ(fault_.error, 0);                                                                                     \
    } while (0)
#define FAULTS(fault, wanted_vector, wanted_error)                                                                     \
    do {                                                                                                               \
        Fault fault_ = (fault);                                                                                        \
        CHECK_EQ(fault_.vector, unsigned(wanted_vector));                                                              \
        CHECK_EQ(fault_.error, wanted_error);                                                                          \
    } while (0)
#define WORKS(fault) CHECK_EQ((fault).vector, NONE)

Fault far_jump(uint16_t selector, word offset) {
    struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } target = {offset, selector};
    return attempt([&] { ASM("ljmpl *%0" ::"m"(target) : "eax", "memory"); });
}
extern "C" void far_landing(); // raises vector 0x48 with CS in EAX
asm(".text\nfar_landing: mov %cs, %eax; int $0x48");
} // namespace

CASE(expand_up_limit) {
    describe(word(bytes), 15, 0x93, 4);
    WORKS(touch_fs(0, 4, false));
    WORKS(touch_fs(12, 4, true));
    WORKS(touch_fs(15, 1, false));
    WORKS(touch_fs(8, 8, false));
    GP0(touch_fs(13, 4, false));
    GP0(touch_fs(16, 1, true));
    GP0(touch_fs(9, 8, false));
    GP0(touch_fs(0xfffffffe, 4, false));
    GP0(touch_fs(0xffffffff, 1, false));
    describe(word(bytes) - 0x1000, 1, 0x93, 0xc); // pages: bytes 0 to 0x1fff
    WORKS(touch_fs(0x1ffc, 4, false));
    GP0(touch_fs(0x1ffd, 4, false));
}

CASE(expand_down_limit) {
    describe(word(bytes), 15, 0x97, 4); // 32-bit: 16 to 0xffffffff
    GP0(touch_fs(15, 1, false));
    GP0(touch_fs(13, 4, false));
    WORKS(touch_fs(16, 4, true));
    describe(word(bytes), 15, 0x97, 0); // 16-bit: 16 to 0xffff
    WORKS(touch_fs(16, 4, false));
    WORKS(touch_fs(0xfffc, 4, false));
    GP0(touch_fs(0xfffd, 4, false));
    GP0(touch_fs(0x10000, 1, false));
}

CASE(stack_limit_violations_are_stack_faults) {
    // In ring 3, so that the exception gets a good stack.
    describe(word(bytes), 63, 0xf3, 4);
    word (*push_at)(word) = [](word esp) -> word {
        ASM("mov %0, %%ss; mov %1, %%esp; pushl $1; int $0x40" ::"r"(FREE_SLOT * 8 + 3), "r"(esp));
        return 0;
    };
    FAULTS(run_user(push_at, 64), USER_RETURN, 0);
    FAULTS(run_user(push_at, 65), SS, 0);
    FAULTS(run_user(push_at, 0), SS, 0); // wraps to the top of 4 GiB
    FAULTS(run_user(push_at, 2), SS, 0);
    describe(word(bytes), 63, 0xf7, 4); // expand-down: above 63
    FAULTS(run_user(push_at, 64), SS, 0);
    FAULTS(run_user(push_at, 68), USER_RETURN, 0);
    describe(word(bytes), 63, 0xf3, 4);
    Fault f = run_user([](word) -> word {
        ASM("mov %0, %%ss; mov $64, %%ebp; mov (%%ebp), %%eax; int $0x40" ::"r"(FREE_SLOT * 8 + 3) : "eax");
        return 0;
    });
    CHECK_EQ(f.vector, SS);
    CHECK_EQ(f.error, 0);
}

CASE(read_and_write_rights) {
    describe(word(bytes), 255, 0x91, 4); // read-only data
    WORKS(touch_fs(0, 4, false));
    GP0(touch_fs(0, 4, true));
    describe(word(bytes), 255, 0x9b, 4); // readable code
    WORKS(touch_fs(0, 4, false));
    GP0(touch_fs(0, 4, true));
    describe(word(bytes), 255, 0x99, 4); // execute-only
    FAULTS(load_ds(SELECTOR), GP, SELECTOR);
    FAULTS(load_ss(SELECTOR), GP, SELECTOR);
    GP0(attempt([] { ASM("movl $1, %%cs:(%0)" ::"r"(bytes) : "memory"); }));
}

CASE(loading_data_segments) {
    describe(0, 0xfffff, 0x13, 0xc);
    FAULTS(load_ds(SELECTOR), NP, SELECTOR);
    FAULTS(load_ss(SELECTOR), SS, SELECTOR);
    describe(0, 0xfffff, 0x91, 0xc);
    FAULTS(load_ss(SELECTOR), GP, SELECTOR); // SS must be writable
    describe(0, 0xfffff, 0x93, 0xc);
    WORKS(load_ss(SELECTOR));
    FAULTS(load_ss(SELECTOR | 3), GP, SELECTOR); // RPL must equal CPL
    WORKS(load_ds(SELECTOR));
    FAULTS(load_ds(SELECTOR | 3), GP, SELECTOR);
    describe(0, 0xfffff, 0xf3, 0xc);
    WORKS(load_ds(SELECTOR | 3));
    FAULTS(load_ss(SELECTOR), GP, SELECTOR); // DPL must equal CPL
    describe(0, 0xfffff, 0x82, 0);           // a system segment
    FAULTS(load_ds(SELECTOR), GP, SELECTOR);
    FAULTS(load_ss(0), GP, 0);
    WORKS(load_ds(0));
    GP0(attempt([] { ASM("mov %0, %%ds; movb (%1), %%al; nop" ::"r"(0), "r"(bytes) : "eax"); }));
    GP0(attempt([] { ASM("mov %0, %%gs; movb %%gs:(%1), %%al" ::"r"(3), "r"(bytes) : "eax"); }));
    FAULTS(load_ds(0x1000), GP, 0x1000);
    FAULTS(load_ds(0x1004), GP, 0x1004);
    CHECK_EQ(attempt([] { ASM("mov %0, %%cs" ::"r"(8)); }).vector, UD);
}

CASE(loading_sets_the_accessed_bit) {
    describe(0, 0xfffff, 0x92, 0xc);
    WORKS(load_ds(SELECTOR));
    CHECK_EQ(gdt()[S] >> 40 & 0xff, 0x93);
}

CASE(ldt_descriptors) {
    static uint64_t ldt[4] __attribute__((aligned(8)));
    ldt[1] = segment(word(bytes), 255, 0x93, 4);
    describe(word(ldt), 15, 0x82, 0);
    ASM("lldt %0" ::"r"(uint16_t(SELECTOR)));
    WORKS(load_ds(0xc));
    FAULTS(load_ds(0x14), GP, 0x14); // beyond its limit
    bytes[5] = 0x77;
    uint8_t seen;
    ASM("mov %1, %%fs; movb %%fs:5, %0" : "=q"(seen) : "r"(0xc));
    CHECK_EQ(seen, 0x77);
    FAULTS(attempt([] { ASM("lldt %0" ::"r"(uint16_t(0x10))); }), GP, 0x10);
    describe(word(ldt), 15, 0x02, 0);
    FAULTS(attempt([] { ASM("lldt %0" ::"r"(uint16_t(SELECTOR))); }), NP, SELECTOR);
    FAULTS(attempt([] { ASM("lldt %0" ::"r"(uint16_t(0xc))); }), GP, 0xc);
    ASM("lldt %0" ::"r"(uint16_t(0)));
    FAULTS(load_ds(0xc), GP, 0xc);
}

CASE(far_jumps_to_code) {
    FAULTS(far_jump(KERNEL_CS, word(far_landing)), 0x48, 0);
    FAULTS(far_jump(0, word(far_landing)), GP, 0);
    FAULTS(far_jump(KERNEL_DS, word(far_landing)), GP, KERNEL_DS);
    FAULTS(far_jump(0x1000, word(far_landing)), GP, 0x1000);
    FAULTS(far_jump(USER_CS, word(far_landing)), GP, USER_CS & ~3);
    describe(0, 0xfffff, 0x1b, 0xc);
    FAULTS(far_jump(SELECTOR, word(far_landing)), NP, SELECTOR);
    describe(0, 0xfffff, 0x9f, 0xc); // conforming, DPL 0
    Fault f = far_jump(SELECTOR | 3, word(far_landing));
    CHECK_EQ(f.vector, 0x48);
    CHECK_EQ(f.ax, SELECTOR);        // CPL replaces the RPL
    describe(0, 0xfffff, 0xff, 0xc); // conforming, DPL 3: not from ring 0
    FAULTS(far_jump(SELECTOR, word(far_landing)), GP, SELECTOR);
    describe(0, 0xf, 0x9b, 0x4);
    FAULTS(far_jump(SELECTOR, 0x10), GP, 0); // beyond the limit
    f = run_user([](word) -> word {
        ASM("ljmpl %0, $1f; 1: mov %%cs, %%eax; int $0x40" ::"i"(FREE_SLOT * 8) : "eax");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    describe(0, 0xfffff, 0x9f, 0xc);
    f = run_user([](word) -> word { // conforming code of ring 0 runs in ring 3
        ASM("ljmpl %0, $1f; 1: mov %%cs, %%eax; int $0x40" ::"i"(FREE_SLOT * 8) : "eax");
        return 0;
    });
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK_EQ(f.ax, SELECTOR | 3);
}

CASE(the_code_limit_ends_execution) {
    static uint8_t code[64] __attribute__((aligned(64)));
    memset(code, 0x90, sizeof code);
    describe(word(code), 31, 0x9b, 4);
    Fault f = far_jump(SELECTOR, 0);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    CHECK_EQ(f.ip, 32);
    CHECK_EQ(f.cs, SELECTOR);
    code[31] = 0xb8; // an instruction that crosses it
    f = far_jump(SELECTOR, 0);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.ip, 31);
    code[0] = 0xeb; // a jump beyond it
    code[1] = 0x30;
    f = far_jump(SELECTOR, 0);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.ip, 0);
}

CASE(call_gate_to_the_same_ring) {
    gdt()[S + 1] = gate(KERNEL_CS, word(far_landing), 0x8c);
    Fault f = far_jump(SELECTOR + 8, 0xdeadbeef);
    CHECK_EQ(f.vector, 0x48);
    gdt()[S + 1] = gate(KERNEL_CS, word(far_landing), 0x0c);
    FAULTS(far_jump(SELECTOR + 8, 0), NP, SELECTOR + 8);
    gdt()[S + 1] = gate(0, word(far_landing), 0x8c);
    FAULTS(far_jump(SELECTOR + 8, 0), GP, 0);
    gdt()[S + 1] = gate(KERNEL_DS, word(far_landing), 0x8c);
    FAULTS(far_jump(SELECTOR + 8, 0), GP, KERNEL_DS);
    gdt()[S + 1] =
        gate(KERNEL_CS, 0xffff0000u | (word(far_landing) & 0xffff), 0x84); // a 16-bit gate has 16 bits of offset
    describe(word(far_landing) & ~0xffffu, 0xffff, 0x9b, 4);
    gdt()[S + 1] = gate(SELECTOR, word(far_landing) | 0xffff0000u, 0x84);
    f = far_jump(SELECTOR + 8, 0);
    CHECK_EQ(f.vector, 0x48);
    CHECK_EQ(f.ax, SELECTOR);
}

namespace {
extern "C" {
void gate_entry();
word gate_frame[8];
}
asm(R"(
.text
gate_entry:                 # copies what the gate pushed, then ends through vector 0x49
    mov %esp, %esi
    mov %ss, %eax
    mov %eax, %ds
    mov %eax, %es
    mov $gate_frame, %edi
    mov $8, %ecx
    cld
    rep movsl
    mov %cs, %eax
    int $0x49
.globl gate_return
gate_return:
    lret $8
)");
} // namespace

CASE(call_gate_to_an_inner_ring_copies_parameters) {
    gdt()[S + 1] = gate(KERNEL_CS, word(gate_entry), 0xec, 2);
    Fault f = run_user([](word) -> word {
        ASM("pushl $0x1111; pushl $0x2222; .globl gate_call_end\nlcall %0, $0\ngate_call_end:" ::"i"((FREE_SLOT + 1) *
                                                                                                     8));
        return 0;
    });
    word at;
    ASM("mov $gate_call_end, %0" : "=r"(at));
    CHECK_EQ(f.vector, 0x49);
    CHECK_EQ(f.ax, KERNEL_CS);
    CHECK_EQ(gate_frame[0], at);
    CHECK_EQ(gate_frame[1], USER_CS);
    CHECK_EQ(gate_frame[2], 0x2222);
    CHECK_EQ(gate_frame[3], 0x1111);
    CHECK_EQ(gate_frame[5], USER_DS);
    // A jump through it may not change rings.
    f = run_user([](word) -> word {
        ASM("ljmpl %0, $0" ::"i"((FREE_SLOT + 1) * 8));
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, KERNEL_CS);
    gdt()[S + 1] = gate(KERNEL_CS, word(gate_entry), 0x8c, 2); // DPL 0: not for ring 3
    f = run_user([](word) -> word {
        ASM("lcall %0, $0" ::"i"((FREE_SLOT + 1) * 8));
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, (S + 1) * 8);
}

CASE(call_gate_and_far_return_round_trip) {
    word entry;
    ASM("mov $gate_return, %0" : "=r"(entry));
    gdt()[S + 1] = gate(KERNEL_CS, entry, 0xec, 2);
    Fault f = run_user([](word) -> word {
        word before, after;
        ASM("mov %%esp, %0; pushl $0x1111; pushl $0x2222; lcall %2, $0; mov %%esp, %1"
            : "=&r"(before), "=&r"(after)
            : "i"((FREE_SLOT + 1) * 8));
        return before - after;
    });
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK_EQ(f.ax, 0); // LRET 8 released the parameters on both stacks
}

CASE(call_gate_with_a_bad_stack_in_the_tss) {
    // The gate goes to ring 1, whose stack is the bad one; exceptions go to ring 0 and its good stack.
    gdt()[S + 2] = segment(0, 0xfffff, 0xbb, 0xc);
    gdt()[S + 3] = segment(0, 0xfffff, 0xb3, 0xc);
    gdt()[S + 1] = gate((S + 2) * 8 + 1, word(gate_entry), 0xec, 0);
    word (*call)(word) = [](word) -> word {
        ASM("lcall %0, $0" ::"i"((FREE_SLOT + 1) * 8));
        return 0;
    };
    tss()->sp1 = word(bytes + 256);
    tss()->ss1 = 0;
    FAULTS(run_user(call), TS, 0);
    tss()->ss1 = KERNEL_DS | 1; // DPL 0
    FAULTS(run_user(call), TS, KERNEL_DS);
    tss()->ss1 = (S + 3) * 8; // RPL 0
    FAULTS(run_user(call), TS, (S + 3) * 8);
    gdt()[S + 3] = segment(0, 0xfffff, 0x33, 0xc);
    tss()->ss1 = (S + 3) * 8 + 1;
    FAULTS(run_user(call), SS, (S + 3) * 8); // not present
    gdt()[S + 3] = segment(word(bytes), 7, 0xb3, 4);
    tss()->sp1 = 8;
    FAULTS(run_user(call), SS, (S + 3) * 8); // no room for the frame
}

CASE(far_return_to_an_outer_ring_nulls_data_segments) {
    Fault f = attempt([] {
        ASM("mov %0, %%eax; mov %%eax, %%fs; mov %%eax, %%ds\n"
            "pushl $0x23; pushl $stack_top-20000; pushl $0x1b; pushl $1f; lretl\n"
            "1: mov %%ds, %%eax; mov %%fs, %%ebx; mov %%es, %%ecx; int $0x40" ::"i"(KERNEL_DS)
            : "eax", "ebx", "ecx", "memory");
    });
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK_EQ(f.ax & 0xffff, 0);
    CHECK_EQ(f.frame.bx & 0xffff, 0);
    CHECK_EQ(f.frame.cx & 0xffff, 0);
}

CASE(far_return_checks) {
    FAULTS(attempt([] { ASM("pushl $0; pushl $0; lretl"); }), GP, 0);
    FAULTS(attempt([] { ASM("pushl %0; pushl $0; lretl" ::"i"(KERNEL_DS)); }), GP, KERNEL_DS);
    Fault f = run_user([](word) -> word {
        ASM("pushl $8; pushl $0; lretl");
        return 0;
    }); // inward
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 8);
    FAULTS(attempt([] { ASM("pushl $0; pushl $0; pushl $0x1b; pushl $0; lretl"); }), GP, 0);       // null SS
    FAULTS(attempt([] { ASM("pushl $0x10; pushl $0; pushl $0x1b; pushl $0; lretl"); }), GP, 0x10); // its RPL is not 3
    FAULTS(attempt([] { ASM("pushl $0x23; pushl $0; pushl $0x1a; pushl $0; lretl"); }), GP, 0x18); // DPL is not the RPL
}

CASE(iret_checks) {
    FAULTS(attempt([] { ASM("pushl $2; pushl $0; pushl $0; iretl"); }), GP, 0);
    FAULTS(attempt([] { ASM("pushl $2; pushl $0x10; pushl $0; iretl"); }), GP, 0x10);
    FAULTS(attempt([] { ASM("pushl $0; pushl $0; pushl $2; pushl $0x1b; pushl $0; iretl"); }), GP, 0);
    Fault f = run_user([](word) -> word {
        ASM("pushl $2; pushl $8; pushl $0; iretl");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 8);
    f = run_user([](word) -> word { // IRET in ring 3 cannot change IOPL nor IF
        ASM("pushl $0x3202; pushl $0x1b; pushl $1f; iretl; 1:");
        return flags() & (FLAG_IOPL | FLAG_IF);
    });
    CHECK_EQ(f.ax, 0);
}

CASE(lar_lsl_verr_verw) {
    auto lar = [](uint32_t selector, uint32_t& value) {
        bool ok;
        value = 0xdead;
        ASM("lar %2, %0; setz %1" : "+r"(value), "=q"(ok) : "r"(selector) : "cc");
        return ok;
    };
    auto lsl = [](uint32_t selector, uint32_t& value) {
        bool ok;
        value = 0xdead;
        ASM("lsl %2, %0; setz %1" : "+r"(value), "=q"(ok) : "r"(selector) : "cc");
        return ok;
    };
    auto verify = [](bool write, uint16_t selector) {
        bool ok;
        if (write)
            ASM("verw %1; setz %0" : "=q"(ok) : "r"(selector) : "cc");
        else
            ASM("verr %1; setz %0" : "=q"(ok) : "r"(selector) : "cc");
        return ok;
    };
    uint32_t value;
    CHECK(lar(KERNEL_DS, value));
    CHECK_EQ(value, 0x00cf9300);
    CHECK(lsl(KERNEL_DS, value));
    CHECK_EQ(value, 0xffffffff);
    describe(0, 0x123, 0x92, 4);
    CHECK(lsl(SELECTOR, value));
    CHECK_EQ(value, 0x123);
    CHECK(!lar(0, value));
    CHECK_EQ(value, 0xdead);
    CHECK(!lsl(0x1000, value));
    CHECK(!lar(SELECTOR | 3, value)); // RPL above DPL
    describe(0, 0x123, 0x12, 4);
    CHECK(lar(SELECTOR, value)); // presence is not looked at
    CHECK(lar(TSS_SELECTOR, value));
    CHECK(lsl(TSS_SELECTOR, value));
    gdt()[S] = gate(8, 0, 0x8c);
    CHECK(lar(SELECTOR, value));  // call gates have rights
    CHECK(!lsl(SELECTOR, value)); // and no limit
    gdt()[S] = gate(8, 0, 0x8e);
    CHECK(!lar(SELECTOR, value)); // interrupt gates neither
    CHECK(verify(false, KERNEL_DS));
    CHECK(verify(true, KERNEL_DS));
    CHECK(verify(false, KERNEL_CS));
    CHECK(!verify(true, KERNEL_CS));
    CHECK(!verify(false, 0));
    CHECK(!verify(false, TSS_SELECTOR));
    CHECK(!verify(false, KERNEL_DS | 3));
    describe(0, 0x123, 0x99, 4);
    CHECK(!verify(false, SELECTOR)); // execute-only
    describe(0, 0x123, 0x9f, 4);
    CHECK(verify(false, SELECTOR | 3)); // conforming: no privilege check
    describe(0, 0x123, 0x91, 4);
    CHECK(verify(false, SELECTOR));
    CHECK(!verify(true, SELECTOR));
}

CASE(arpl_and_bound_and_into) {
    uint16_t selector = 0x10;
    bool changed;
    ASM("arpl %2, %0; setz %1" : "+r"(selector), "=q"(changed) : "r"(uint16_t(3)) : "cc");
    CHECK(changed);
    CHECK_EQ(selector, 0x13);
    ASM("arpl %2, %0; setz %1" : "+r"(selector), "=q"(changed) : "r"(uint16_t(1)) : "cc");
    CHECK(!changed);
    static int32_t const range[2] = {-2, 5};
    WORKS(attempt([] { ASM("bound %0, %1" ::"r"(-2), "m"(range)); }));
    WORKS(attempt([] { ASM("bound %0, %1" ::"r"(5), "m"(range)); }));
    CHECK_EQ(attempt([] { ASM("bound %0, %1" ::"r"(6), "m"(range)); }).vector, BR);
    CHECK_EQ(attempt([] { ASM("bound %0, %1" ::"r"(-3), "m"(range)); }).vector, BR);
    set_gate(OF, stub_address(OF), 0xee);
    CHECK_EQ(attempt([] { ASM("mov $0x7fffffff, %%eax; inc %%eax; into" ::: "eax"); }).vector, OF);
    WORKS(attempt([] { ASM("xor %%eax, %%eax; into" ::: "eax"); }));
    reload_tables();
}

CASE(a_16_bit_stack_wraps_within_64k) {
    // B clear: SP alone moves, the upper half of ESP stays.
    static uint8_t stack[256] __attribute__((aligned(256)));
    describe(word(stack) - 0x100, 0xffff, 0x93, 0);
    word after;
    ASM("mov %%ss, %%edx; mov %%esp, %%ecx; mov %1, %%ss; mov $0x12340200, %%esp; pushl $0x55667788; mov %%esp, %0; "
        "mov %%edx, %%ss; mov %%ecx, %%esp"
        : "=&r"(after)
        : "r"(SELECTOR)
        : "ecx", "edx", "memory");
    CHECK_EQ(after, 0x123401fc);
    CHECK_EQ(*reinterpret_cast<uint32_t*>(stack + 0xfc), 0x55667788);
}
