// Descriptor tables, exceptions as values, ring 3.
#include "runtime/traps.h"

namespace {
alignas(16) uint64_t the_gdt[GDT_SLOTS];
alignas(16) IdtEntry the_idt[256];
alignas(16) Tss the_tss;
alignas(16) uint8_t trap_stack[16384];
alignas(16) uint8_t user_stack[16384];
Handler handlers[256];
Fault last;
constexpr unsigned stub_size = 16;
} // namespace

uint64_t* gdt() { return the_gdt; }
IdtEntry* idt() { return the_idt; }
Tss* tss() { return &the_tss; }
word stub_address(unsigned vector) { return word(trap_stubs) + vector * stub_size; }
void set_handler(unsigned vector, Handler handler) { handlers[vector] = handler; }

uint64_t segment(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags) {
    return (limit & 0xffff) | uint64_t(base & 0xffffff) << 16 | uint64_t(access) << 40 |
           uint64_t(limit >> 16 & 0xf) << 48 | uint64_t(flags) << 52 | uint64_t(base >> 24) << 56;
}

uint64_t gate(uint16_t selector, uint32_t offset, uint8_t access, uint8_t parameters) {
    return (offset & 0xffff) | uint64_t(selector) << 16 | uint64_t(parameters) << 32 | uint64_t(access) << 40 |
           uint64_t(offset >> 16) << 48;
}

static bool is_user(Frame const* frame) { return frame->cs == USER_CS && !(frame->flags & FLAG_VM); }

void set_gate(unsigned vector, word offset, uint8_t access, uint8_t ist, uint16_t selector) {
    the_idt[vector].low = gate(selector, uint32_t(offset), access, ist);
#ifdef __x86_64__
    the_idt[vector].high = offset >> 32;
#endif
}

void reload_tables() {
    for (unsigned slot = 1; slot < FREE_SLOT; ++slot) the_gdt[slot] = 0;
#ifdef __x86_64__
    the_gdt[1] = segment(0, 0xfffff, 0x9b, 0xa);
    the_gdt[3] = segment(0, 0xfffff, 0x9b, 0xc);
    the_gdt[4] = segment(0, 0xfffff, 0xf3, 0xc);
    the_gdt[5] = segment(0, 0xfffff, 0xfb, 0xa);
    the_tss.sp[0] = word(trap_stack + sizeof trap_stack);
    the_gdt[7] = word(&the_tss) >> 32;
#else
    the_gdt[1] = segment(0, 0xfffff, 0x9b, 0xc);
    the_gdt[3] = segment(0, 0xfffff, 0xfb, 0xc);
    the_gdt[4] = segment(0, 0xfffff, 0xf3, 0xc);
    the_tss.sp0 = word(trap_stack + sizeof trap_stack);
    the_tss.ss0 = KERNEL_DS;
#endif
    the_gdt[2] = segment(0, 0xfffff, 0x93, 0xc);
    the_gdt[6] = segment(uint32_t(word(&the_tss)), sizeof the_tss - 1, 0x89, 0);
    the_tss.io_map = uint16_t(sizeof the_tss); // beyond the limit: no port is allowed
    for (unsigned vector = 0; vector < 256; ++vector)
        set_gate(vector, stub_address(vector), vector == USER_RETURN ? 0xee : 0x8e);
    lgdt({sizeof the_gdt - 1, word(the_gdt)});
    lidt({sizeof the_idt - 1, word(the_idt)});
    ltr(TSS_SELECTOR);
    ASM("lldt %0" ::"r"(uint16_t(0)));
}

void escape(Frame* frame) {
    last.vector = unsigned(frame->vector);
    last.error = frame->error;
    last.ip = frame->ip;
    last.cs = frame->cs;
    last.flags = frame->flags;
    last.sp = frame->sp;
    last.ss = frame->ss;
    last.ax = frame->ax;
    last.cr2 = read_cr2();
    last.frame = *frame;
    frame->ip = word(guarded_escape);
    frame->cs = KERNEL_CS;
    frame->flags = 2;
#ifdef __x86_64__
    frame->sp = guarded_stack;
    frame->ss = KERNEL_DS;
#endif
}

// Where the host emulates ring 3 for KVM without INT n and IRET, those raise #UD: the case cannot run there.
static void look_for_emulation_hole(Frame const* frame) {
    if (!is_user(frame) || (read_cr4() & CR4_SMAP)) return;
    auto code = reinterpret_cast<uint8_t const volatile*>(frame->ip);
    if (code[0] == 0xcd || code[0] == 0xcc || code[0] == 0xcf) note_cannot_emulate(code[0]);
}

extern "C" void handle_trap(Frame* frame) {
    if (frame->vector == UD) {
        if (is_user(frame) && frame->ip == word(user_return) + USER_OFFSET)
            frame->vector = USER_RETURN;
        else
            look_for_emulation_hole(frame);
    }
    if (Handler handler = handlers[frame->vector & 0xff]) return handler(frame);
    last.dr6 = read_dr6();
    if (guarded_stack) return escape(frame);
    print("vector %lu error 0x%lx at 0x%lx cr2 0x%lx outside any case\n", frame->vector, frame->error, frame->ip,
          read_cr2());
    leave(2);
}

Fault attempt(void (*body)(void*), void* argument) {
    Fault fault{};
    fault.vector = NONE;
    return guarded_call(body, argument) ? last : fault;
}

Fault run_user(word (*function)(word), word argument, word with_flags) {
    return attempt([=] {
#ifdef __x86_64__
        auto top = reinterpret_cast<word*>(user_stack + sizeof user_stack - 8);
        *top = word(user_return) + USER_OFFSET;
        enter_user(word(function) + USER_OFFSET, argument, word(top) + USER_OFFSET, with_flags);
#else
        enter_user(word(function), argument, word(user_stack + sizeof user_stack - 16), with_flags);
#endif
    });
}
