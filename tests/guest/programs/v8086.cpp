// Virtual-8086 mode: entry and exit, IOPL-sensitive instructions, interrupts through the IDT and (VME) through the
// interrupt table, virtual IF, faults with their frames.
#include "runtime/guest.h"

namespace {

constexpr uint16_t SEGMENT = 0x2000; // linear 0x20000: code at 0, stack at its end
uint8_t* const memory = reinterpret_cast<uint8_t*>(0x20000);

extern "C" void enter_v86(word flags, word ip);
asm(R"(
.text
enter_v86:                      # IRET to SEGMENT:ip with the stack at SEGMENT:0xfff0
    mov 4(%esp), %eax
    mov 8(%esp), %ecx
    pushl $0x5555               # gs, fs, ds, es
    pushl $0x4444
    pushl $0x2000
    pushl $0x2000
    pushl $0x2000
    pushl $0xfff0
    push %eax
    pushl $0x2000
    push %ecx
    iretl
)");

// Runs bytes in v8086 mode; EFLAGS are VM and the bits given.
template <size_t N> Fault run(uint8_t const (&code)[N], word with = 0) {
    memcpy(memory, code, N);
    return attempt([=] { enter_v86(FLAG_VM | 2 | with, 0); });
}
void use_vme(bool on) {
    word cr4 = read_cr4();
    write_cr4(on ? cr4 | CR4_VME : cr4 & ~CR4_VME);
}
bool has_vme() { return bit(cpuid(1).d, 1); }
// The redirection bitmap (32 bytes before the I/O bitmap): a clear bit sends INT n to the interrupt table at 0.
void redirect(unsigned vector, bool to_table) {
    uint8_t& byte = tss()->bitmap[vector / 8];
    byte = uint8_t(to_table ? byte & ~(1 << vector % 8) : byte | 1 << vector % 8);
}
void bitmaps() {
    memset(tss()->bitmap, 0xff, sizeof tss()->bitmap);
    tss()->io_map = uint16_t(offsetof(Tss, bitmap) + 32);
}
uint16_t& vector_word(unsigned index) { return *reinterpret_cast<uint16_t*>(index * 2 + 0x0); }

} // namespace

CASE(an_exception_leaves_with_the_long_frame) {
    Fault f = run({0x0f, 0x0b}, FLAG_IOPL);
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(f.ip, 0);
    CHECK_EQ(f.cs, SEGMENT);
    CHECK(f.flags & FLAG_VM);
    CHECK_EQ(f.ss, SEGMENT);
    CHECK_EQ(f.sp, 0xfff0);
    CHECK_EQ(f.frame.v86_es, SEGMENT);
    CHECK_EQ(f.frame.v86_ds, SEGMENT);
    CHECK_EQ(f.frame.v86_fs, 0x4444);
    CHECK_EQ(f.frame.v86_gs, 0x5555);
}

CASE(code_is_16_bit_real_mode_code) {
    // mov ax, 0x1234; mov bx, cs; mov [0x100], ax; mov ecx, [0x100]; int3
    *reinterpret_cast<uint32_t*>(memory + 0x100) = 0xaaaaaaaa;
    Fault f =
        run({0xb8, 0x34, 0x12, 0x8c, 0xcb, 0xa3, 0x00, 0x01, 0x66, 0x8b, 0x0e, 0x00, 0x01, 0x0f, 0x0b}, FLAG_IOPL);
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(f.ax & 0xffff, 0x1234);
    CHECK_EQ(f.frame.bx & 0xffff, SEGMENT);
    CHECK_EQ(f.frame.cx, 0xaaaa1234);
}

CASE(offsets_beyond_64k_fault) {
    Fault f =
        run({0x66, 0xbb, 0xff, 0xff, 0, 0, 0x67, 0x8b, 0x03, 0x0f, 0x0b}, FLAG_IOPL); // mov ebx, 0xffff; mov ax, [ebx]
    CHECK_EQ(f.vector, GP);
    f = run({0x66, 0xbb, 0x00, 0x00, 1, 0, 0x67, 0x8a, 0x03, 0x0f, 0x0b}, FLAG_IOPL);
    CHECK_EQ(f.vector, GP);
}

CASE(iopl_below_3_traps_sensitive_instructions) {
    static uint8_t const sensitive[][2] = {{0xfa, 0x90}, {0xfb, 0x90}, {0x9c, 0x90},
                                           {0x9d, 0x90}, {0xcd, 0x21}, {0xcf, 0x90}};
    for (auto const& code : sensitive) {
        Fault f = run(code);
        CHECK_EQ(f.vector, GP);
        CHECK_EQ(f.error, 0);
        CHECK_EQ(f.ip, 0);
    }
    Fault f = run({0xfa, 0xfb, 0x9c, 0x9d, 0x0f, 0x0b}, FLAG_IOPL);
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(f.ip, 4);
    f = run({0xcc}); // INT3 is not IOPL-sensitive, but its gate has DPL 0
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 3 * 8 + 2);
    f = run({0xf4}, FLAG_IOPL);
    CHECK_EQ(f.vector, GP); // HLT needs ring 0
    f = run({0x0f, 0x00, 0xc8}, FLAG_IOPL);
    CHECK_EQ(f.vector, UD); // STR is not for v8086
    f = run({0x63, 0xc0}, FLAG_IOPL);
    CHECK_EQ(f.vector, UD); // nor ARPL
}

CASE(ports_follow_the_bitmap_alone) {
    bitmaps();
    Fault f = run({0xe4, 0x80, 0x0f, 0x0b}, FLAG_IOPL); // IOPL 3 does not help
    CHECK_EQ(f.vector, GP);
    tss()->bitmap[32 + 0x80 / 8] &= 0xfe;
    f = run({0xe4, 0x80, 0x0f, 0x0b});
    CHECK_EQ(f.vector, UD);
    f = run({0xe5, 0x80, 0x0f, 0x0b});
    CHECK_EQ(f.vector, GP);
    reload_tables();
}

CASE(int_n_with_iopl_3_uses_the_idt) {
    set_gate(0x66, stub_address(0x66), 0xee);
    Fault f = run({0xcd, 0x66}, FLAG_IOPL);
    CHECK_EQ(f.vector, 0x66);
    CHECK_EQ(f.ip, 2);
    f = run({0xcd, 0x67}, FLAG_IOPL);
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0x67 * 8 + 2);
    reload_tables();
}

CASE(popf_and_iret_keep_iopl_and_vm) {
    // push 0; popf; pushf; pop ax; ud2
    Fault f = run({0x6a, 0x00, 0x9d, 0x9c, 0x58, 0x0f, 0x0b}, FLAG_IOPL);
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(f.ax & FLAG_IOPL, FLAG_IOPL);
    CHECK(f.flags & FLAG_VM);
}

CASE(vme_redirects_software_interrupts) {
    if (!has_vme()) SKIP("no VME");
    use_vme(true);
    bitmaps();
    redirect(0x21, true);
    // The interrupt table: 0x21 -> SEGMENT:0x40, which puts 0x77 into AL and IRETs.
    uint16_t old_ip = vector_word(0x42), old_cs = vector_word(0x43);
    vector_word(0x42) = 0x40;
    vector_word(0x43) = SEGMENT;
    static uint8_t const handler[] = {0xb0, 0x77, 0x89, 0xe3, 0xcf}; // mov al, 0x77; mov bx, sp; iret
    memcpy(memory + 0x40, handler, sizeof handler);
    Fault f = run({0xcd, 0x21, 0x0f, 0x0b}, FLAG_IOPL);
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(f.ip, 2);
    CHECK_EQ(f.ax & 0xff, 0x77);
    CHECK_EQ(f.frame.bx & 0xffff, 0xffea);
    f = run({0xcd, 0x21, 0x0f, 0x0b}); // IOPL 0: still redirected; IRET with virtual IF works too
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(f.ax & 0xff, 0x77);
    redirect(0x21, false);
    f = run({0xcd, 0x21}); // IOPL 0 and not redirected
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    vector_word(0x42) = old_ip;
    vector_word(0x43) = old_cs;
    use_vme(false);
    reload_tables();
}

CASE(vme_gives_iopl_0_a_virtual_if) {
    if (!has_vme()) SKIP("no VME");
    use_vme(true);
    Fault f = run({0xfb, 0x0f, 0x0b}); // sti
    CHECK_EQ(f.vector, UD);
    CHECK(f.flags & FLAG_VIF);
    CHECK(!(f.flags & FLAG_IF));
    f = run({0xfa, 0x0f, 0x0b}, FLAG_VIF); // cli
    CHECK_EQ(f.vector, UD);
    CHECK(!(f.flags & FLAG_VIF));
    f = run({0x9c, 0x58, 0x0f, 0x0b}, FLAG_VIF); // pushf shows VIF as IF, IOPL as 3
    CHECK_EQ(f.vector, UD);
    CHECK_EQ(f.ax & (FLAG_IF | FLAG_IOPL), FLAG_IF | FLAG_IOPL);
    f = run({0xfb, 0x0f, 0x0b}, FLAG_VIP); // a pending virtual interrupt
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.ip, 0);
    f = run({0x68, 0x00, 0x02, 0x9d, 0x0f, 0x0b}, FLAG_VIP); // popf setting IF
    CHECK_EQ(f.vector, GP);
    f = run({0x68, 0x00, 0x01, 0x9d, 0x0f, 0x0b}); // popf setting TF
    CHECK_EQ(f.vector, GP);
    f = run({0x66, 0x9c}); // 32-bit PUSHF is not virtualised
    CHECK_EQ(f.vector, GP);
    use_vme(false);
    f = run({0xfb, 0x0f, 0x0b});
    CHECK_EQ(f.vector, GP);
}

CASE(pvi_gives_ring_3_a_virtual_if) {
    if (!has_vme()) SKIP("no PVI");
    write_cr4(read_cr4() | CR4_PVI);
    Fault f = run_user([](word) -> word {
        ASM("sti");
        return flags();
    });
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK(f.flags & FLAG_VIF);
    CHECK(!(f.flags & FLAG_IF));
    f = run_user(
        [](word) -> word {
            ASM("cli");
            return 0;
        },
        0, 2 | FLAG_VIF);
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK(!(f.flags & FLAG_VIF));
    f = run_user(
        [](word) -> word {
            ASM("sti");
            return 0;
        },
        0, 2 | FLAG_VIP);
    CHECK_EQ(f.vector, GP);
    write_cr4(read_cr4() & ~CR4_PVI);
}
