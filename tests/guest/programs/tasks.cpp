// Task switches: 32- and 16-bit TSS; jump, call, IRET, task gates in the GDT and IDT; the busy bit and NT; what a
// switch saves, loads, refuses.
#include "runtime/guest.h"

namespace {
constexpr unsigned A = FREE_SLOT, B = FREE_SLOT + 1, GATE = FREE_SLOT + 2, SPARE = FREE_SLOT + 3;
Tss here, there; // the running task's TSS while a case runs, and the other one
struct __attribute__((packed)) Tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
} there16;
uint8_t task_stack[8192] __attribute__((aligned(16)));

extern "C" {
void task_body();
void task_body_jump();
void task_body_error();
unsigned volatile task_runs;
word task_flags, task_error, task_ax;
word* repair_slot; // where the fault's task writes a good selector
}
asm(R"(
.text
task_body:                      # a loop: each time it is entered it notes and returns by IRET
    mov %eax, task_ax
    incl task_runs
    pushfl
    popl task_flags
    iretl
    jmp task_body
task_body_jump:                 # returns by a jump to the first task
    incl task_runs
    pushfl
    popl task_flags
    ljmp $0x40, $0
    jmp task_body_jump
task_body_error:                # a fault's task: pops the error code
    incl task_runs
    popl task_error
    mov repair_slot, %eax
    movl $0x10, (%eax)
    iretl
    jmp task_body_error
)");

uint8_t access_byte(unsigned slot) { return uint8_t(gdt()[slot] >> 40); }

void set_up(void (*body)()) {
    memset(&there, 0, sizeof there);
    there.eip = word(body);
    there.eflags = 2;
    there.esp = word(task_stack + sizeof task_stack);
    there.cs = KERNEL_CS;
    there.ss = there.ds = there.es = there.fs = there.gs = KERNEL_DS;
    there.ss0 = KERNEL_DS;
    there.sp0 = there.esp - 4096;
    there.cr3 = read_cr3();
    there.eax = 0x1234;
    there.io_map = sizeof there;
    here = there;
    gdt()[A] = segment(word(&here), 103, 0x89, 0);
    gdt()[B] = segment(word(&there), 103, 0x89, 0);
    gdt()[GATE] = gate(B * 8, 0, 0x85);
    ltr(A * 8);
    task_runs = 0;
}
Fault switch_by(bool call, uint16_t selector) {
    struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } target = {0xdeadbeef, selector};
    return attempt([&] {
        if (call)
            ASM("lcall *%0" ::"m"(target) : "eax", "ecx", "edx", "memory", "cc");
        else
            ASM("ljmp *%0" ::"m"(target) : "eax", "ecx", "edx", "memory", "cc");
    });
}
} // namespace

CASE(a_call_nests_and_iret_returns) {
    set_up(task_body);
    Fault f = switch_by(true, B * 8);
    CHECK_EQ(f.vector, NONE);
    CHECK_EQ(task_runs, 1);
    CHECK_EQ(task_ax, 0x1234);
    CHECK(task_flags & FLAG_NT);
    CHECK_EQ(there.link, A * 8);
    CHECK_EQ(access_byte(A), 0x8b); // busy again
    CHECK_EQ(access_byte(B), 0x89); // free again
    CHECK(!(flags() & FLAG_NT));
    CHECK_EQ(there.eflags & FLAG_NT, 0); // IRET saves NT clear
    f = switch_by(true, B * 8);          // goes on behind its IRET
    CHECK_EQ(f.vector, NONE);
    CHECK_EQ(task_runs, 2);
    CHECK(read_cr0() & CR0_TS); // every switch sets TS
    ASM("clts");
    reload_tables();
}

CASE(a_jump_does_not_nest) {
    set_up(task_body_jump);
    Fault f = switch_by(false, B * 8);
    CHECK_EQ(f.vector, NONE);
    CHECK_EQ(task_runs, 1);
    CHECK(!(task_flags & FLAG_NT));
    CHECK_EQ(access_byte(A), 0x8b);
    CHECK_EQ(access_byte(B), 0x89);
    CHECK_EQ(there.link, 0);
    ASM("clts");
    reload_tables();
}

CASE(a_task_gate_leads_to_its_task) {
    set_up(task_body);
    CHECK_EQ(switch_by(true, GATE * 8).vector, NONE);
    CHECK_EQ(task_runs, 1);
    gdt()[GATE] = gate(B * 8, 0, 0x05);
    Fault f = switch_by(true, GATE * 8);
    CHECK_EQ(f.vector, NP);
    CHECK_EQ(f.error, GATE * 8);
    gdt()[GATE] = gate(KERNEL_DS, 0, 0x85);
    f = switch_by(true, GATE * 8);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, KERNEL_DS);
    gdt()[GATE] = gate(B * 8, 0, 0x85);
    ASM("clts");
    reload_tables();
}

CASE(an_interrupt_through_a_task_gate) {
    set_up(task_body);
    idt()[0x55].low = gate(B * 8, 0, 0x85);
    CHECK_EQ(attempt([] { ASM("int $0x55" ::: "memory"); }).vector, NONE);
    CHECK_EQ(task_runs, 1);
    CHECK_EQ(access_byte(B), 0x89);
    ASM("clts");
    set_up(task_body_error); // a fault's error code goes on the new task's stack
    idt()[GP].low = gate(B * 8, 0, 0x85);
    there.eip = word(task_body_error);
    gdt()[SPARE] = segment(0, 0xfffff, 0x93, 0xc);
    // The faulting load is retried after the task's IRET; the task repairs the EAX it was saved with.
    task_error = 0;
    repair_slot = reinterpret_cast<word*>(&here.eax);
    ASM("mov $0x1000, %%eax; mov %%eax, %%fs" ::: "eax", "memory");
    CHECK_EQ(task_runs, 1);
    CHECK_EQ(task_error, 0x1000);
    reload_tables();
    ASM("clts");
}

CASE(a_double_fault_can_have_its_own_task) {
    static unsigned volatile arrived;
    arrived = 0;
    set_up(task_body_error);
    there.eip = word(+[] { // runs in the new task: notes, and ends the case through an ordinary vector
        arrived = 1;
        ASM("int $0x4a");
    });
    there.esp -= 4; // as after a call
    idt()[DF].low = gate(B * 8, 0, 0x85);
    set_gate(GP, stub_address(GP), 0x0e); // not present
    Fault f = attempt([] { ASM("mov %0, %%ds" ::"r"(0x1000)); });
    CHECK_EQ(f.vector, 0x4a);
    CHECK_EQ(arrived, 1);
    CHECK_EQ(there.link, A * 8);
    CHECK_EQ(access_byte(A), 0x8b);
    CHECK_EQ(access_byte(B), 0x8b);
    set_flags(2); // NT
    ASM("clts");
    reload_tables();
}

CASE(busy_and_bad_tasks_are_refused) {
    set_up(task_body);
    Fault f = switch_by(true, A * 8); // itself: busy
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, A * 8);
    gdt()[B] = segment(word(&there), 103, 0x09, 0);
    f = switch_by(true, B * 8);
    CHECK_EQ(f.vector, NP);
    CHECK_EQ(f.error, B * 8);
    gdt()[B] = segment(word(&there), 102, 0x89, 0); // too short
    f = switch_by(true, B * 8);
    CHECK_EQ(f.vector, TS);
    CHECK_EQ(f.error, B * 8);
    gdt()[B] = segment(word(&there), 103, 0x89, 0);
    set_flags(FLAG_NT | 2);
    here.link = B * 8; // IRET to a task that is not busy
    f = attempt([] { ASM("iretl"); });
    CHECK_EQ(f.vector, TS);
    CHECK_EQ(f.error, B * 8);
    set_flags(2);
    CHECK_EQ(run_user([](word) -> word {
                 ASM("lcall %0, $0" ::"i"((FREE_SLOT + 1) * 8));
                 return 0;
             }).vector,
             GP); // TSS of DPL 0
    reload_tables();
}

CASE(bad_segments_in_the_new_task) {
    // The exception comes in the new task's context.
    set_up(task_body);
    there.cs = KERNEL_DS;
    Fault f = switch_by(true, B * 8);
    CHECK_EQ(f.vector, TS);
    CHECK_EQ(f.error, KERNEL_DS);
    CHECK_EQ(f.ip, word(task_body));
    reload_tables();
    set_flags(2);
    set_up(task_body);
    idt()[0x55].low = gate(B * 8, 0, 0x85); // by an interrupt: the same, and no double fault
    there.fs = 0x1000;
    f = attempt([] { ASM("int $0x55"); });
    CHECK_EQ(f.vector, TS);
    CHECK_EQ(f.error, 0x1000);
    CHECK_EQ(f.ip, word(task_body));
    reload_tables();
    set_flags(2);
    set_up(task_body);
    there.ds = 0x1000;
    f = switch_by(true, B * 8);
    CHECK_EQ(f.vector, TS);
    CHECK_EQ(f.error, 0x1000);
    reload_tables();
    set_flags(2);
    set_up(task_body);
    gdt()[SPARE] = segment(0, 0xfffff, 0x13, 0xc);
    there.es = SPARE * 8;
    f = switch_by(true, B * 8);
    CHECK_EQ(f.vector, NP);
    CHECK_EQ(f.error, SPARE * 8);
    reload_tables();
    set_flags(2);
    ASM("clts");
}

CASE(a_16_bit_task) {
    set_up(task_body);
    memset(&there16, 0, sizeof there16);
    // Its code lies in a 16-bit segment based at task_body16; it notes and returns by IRET.
    static uint8_t const code[] = {0x67, 0xff, 0x05, 0, 0, 0, 0, 0xcf, 0xeb, 0xf6}; // incw (address); iret; jmp back
    static uint8_t body[sizeof code];
    memcpy(body, code, sizeof code);
    word address = word(&task_runs);
    memcpy(body + 3, &address, 4);
    gdt()[SPARE] = segment(word(body), 0xffff, 0x9b, 0);
    gdt()[SPARE + 1] = segment(word(task_stack), 0xffff, 0x93, 0);
    there16.cs = SPARE * 8;
    there16.ss = (SPARE + 1) * 8;
    there16.ds = there16.es = KERNEL_DS;
    there16.sp = 4096;
    there16.flags = 2;
    there16.ax = 0x4321;
    gdt()[B] = segment(word(&there16), 43, 0x81, 0);
    CHECK_EQ(switch_by(true, B * 8).vector, NONE);
    CHECK_EQ(task_runs, 1);
    CHECK_EQ(there16.link, A * 8);
    CHECK_EQ(access_byte(B), 0x81);
    CHECK_EQ(switch_by(true, B * 8).vector, NONE);
    CHECK_EQ(task_runs, 2);
    gdt()[B] = segment(word(&there16), 42, 0x81, 0);
    CHECK_EQ(switch_by(true, B * 8).vector, TS);
    ASM("clts");
    reload_tables();
}

CASE(the_t_bit_raises_a_debug_trap) {
    set_up(task_body);
    there.trap = 1;
    write_dr6(0xffff0ff0);
    Fault f = switch_by(true, B * 8);
    CHECK_EQ(f.vector, DB);
    CHECK_EQ(f.dr6 & 0x8000, 0x8000);
    CHECK_EQ(f.ip, word(task_body));
    write_dr6(0xffff0ff0);
    set_flags(2);
    ASM("clts");
    reload_tables();
}
