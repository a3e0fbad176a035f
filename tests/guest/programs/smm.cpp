// System management mode: SMIs by the APM port and the local APIC, the state save area, RSM, SMBASE, what SMRAM hides,
// NMIs and INIT held back.
#include "runtime/apic.h"

namespace {

constexpr uint32_t DEFAULT_BASE = 0x30000, NEW_BASE = 0xa0000;
constexpr uint16_t APM = 0xb2;

uint8_t volatile* ram(uint32_t address) { return reinterpret_cast<uint8_t volatile*>(word(address)); }
template <class T> T volatile& at(uint32_t address) { return *reinterpret_cast<T volatile*>(word(address)); }
// A field of the save area by its offset from SMBASE (AMD APM vol. 2 table 10-1).
template <class T> T volatile& saved(uint32_t base, uint32_t offset) { return at<T>(base + offset); }

// What the handler saw, below its stack at 0x5f0.
struct __attribute__((packed)) Notes {
    uint16_t count, cs;
    uint32_t cr0, flags, ax;
    uint8_t command;
};
constexpr uint32_t NOTES = 0x600;
Notes volatile& notes() { return at<Notes>(NOTES); }

constexpr uint8_t handler[] = {
    0x66, 0xa3, 0x0c, 0x06,       // mov [0x60c], eax (ds is 0 already)
    0xff, 0x06, 0x00, 0x06,       // inc word [0x600]
    0x8c, 0x0e, 0x02, 0x06,       // mov [0x602], cs
    0x0f, 0x20, 0xc3,             // mov ebx, cr0
    0x66, 0x89, 0x1e, 0x04, 0x06, // mov [0x604], ebx
    0xbc, 0xf0, 0x05,             // mov sp, 0x5f0
    0x66, 0x9c,                   // pushfd
    0x66, 0x8f, 0x06, 0x08, 0x06, // pop dword [0x608]
    0xe4, 0xb2,                   // in al, 0xb2
    0xa2, 0x10, 0x06,             // mov [0x610], al
    0x0f, 0xaa,                   // rsm
};

void install(uint32_t base, uint8_t const* code, unsigned size) {
    for (unsigned i = 0; i < size; ++i) ram(base + 0x8000)[i] = code[i];
}
void clear_notes() {
    for (unsigned i = 0; i < sizeof(Notes); ++i) ram(NOTES)[i] = 0;
}
void apm_smi(bool on) {
    uint32_t value = pci_read(1, 3, 0x58);
    pci_write(1, 3, 0x58, on ? value | 1u << 25 : value & ~(1u << 25));
}
void open_smram(uint8_t smram) {
    uint32_t value = pci_read(0, 0, 0x70);
    pci_write(0, 0, 0x70, (value & ~0xff0000u) | uint32_t(smram) << 16);
}
constexpr uint8_t SMRAM_OPEN = 0x4a, SMRAM_ON = 0x0a, SMRAM_OFF = 0x02;

} // namespace

CASE(rsm_outside_smm_is_ud) {
    CHECK_EQ(attempt([] { ASM("rsm"); }).vector, UD);
}

CASE(the_apm_port_raises_an_smi_only_when_enabled) {
    clear_notes();
    install(DEFAULT_BASE, handler, sizeof handler);
    apm_smi(false);
    outb(APM, 0x11);
    CHECK_EQ(notes().count, 0);
    apm_smi(true);
    outb(APM, 0x12);
    CHECK_EQ(notes().count, 1);
    CHECK_EQ(notes().command, 0x12);
    CHECK_EQ(notes().cs, DEFAULT_BASE >> 4);
    CHECK_EQ(notes().cr0 & (CR0_PE | CR0_PG), 0);
    CHECK_EQ(notes().flags & 0x3ffff, 2);
}

CASE(the_save_area_holds_the_interrupted_state_and_rsm_brings_it_back) {
    clear_notes();
    word out_ax = 0x12345613, out_cx = 0x1122334455667788, r15 = 0xfedcba9876543210, sp = 0;
    ASM("mov %2, %%r15\n mov %%rsp, %3\n outb %%al, $0xb2\n mov %%r15, %2"
        : "+a"(out_ax), "+c"(out_cx), "+r"(r15), "=m"(sp)::"r15", "memory");
    CHECK_EQ(notes().count, 1);
    CHECK_EQ(notes().ax, 0x12345613); // the handler begins with the interrupted registers
    CHECK_EQ(out_ax, 0x12345613);
    CHECK_EQ(out_cx, 0x1122334455667788);
    CHECK_EQ(r15, 0xfedcba9876543210);
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xfff8), 0x12345613);
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xfff0), 0x1122334455667788);
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xff80), 0xfedcba9876543210);
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xffd8), sp);
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xff50), read_cr3());
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xff58), read_cr0());
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xff48), read_cr4());
    CHECK_EQ(saved<uint64_t>(DEFAULT_BASE, 0xfed0), rdmsr(0xc0000080));
    CHECK_EQ(saved<uint16_t>(DEFAULT_BASE, 0xfe10), KERNEL_CS);
    CHECK_EQ(saved<uint32_t>(DEFAULT_BASE, 0xfefc), 0x20064);
    CHECK_EQ(saved<uint32_t>(DEFAULT_BASE, 0xff00), DEFAULT_BASE);
    CHECK_EQ(saved<uint8_t>(DEFAULT_BASE, 0xfec9), 0);
}

CASE(a_handler_may_change_what_rsm_loads) {
    // mov dword [0x3fff8 from segment 0x3000], 0x55; rsm
    static constexpr uint8_t code[] = {0xb8, 0x00, 0x30, 0x8e, 0xd8, 0x66, 0xc7, 0x06,
                                       0xf8, 0xff, 0x55, 0x00, 0x00, 0x00, 0x0f, 0xaa};
    install(DEFAULT_BASE, code, sizeof code);
    word ax = 0x14;
    ASM("outb %%al, $0xb2" : "+a"(ax)::"memory");
    CHECK_EQ(ax, 0x55);
    install(DEFAULT_BASE, handler, sizeof handler);
}

CASE(an_smi_by_the_local_apic_is_taken_at_once) {
    clear_notes();
    apic_enable();
    apic_ipi(apic_read(APIC_ID) >> 24, 0x4200);
    for (unsigned i = 0; i < 1000 && !notes().count; ++i) pause();
    CHECK_EQ(notes().count, 1);
}

CASE(hlt_goes_on_waiting_after_an_smi) {
    static unsigned volatile woken;
    clear_notes();
    apic_enable();
    pic_mask(0xffff);
    set_handler(0x61, [](Frame*) {
        woken = woken + 1;
        apic_eoi();
    });
    woken = 0;
    apic_write(APIC_LVT_TIMER, 0x61);
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_INITIAL, 50'000'000);
    ioapic_route(2, 0x200); // the PIT's pin as an SMI
    pit_start(0, 0, 5000);  // after 4 ms, once
    ASM("sti; hlt");
    cli();
    CHECK_EQ(notes().count, 1);
    CHECK_EQ(woken, 1);
    ioapic_route(2, 0x10000);
    apic_write(APIC_LVT_TIMER, 0x10000);
    set_handler(0x61, nullptr);
}

CASE(smram_is_seen_by_smm_alone) {
    apm_smi(true);
    open_smram(SMRAM_OPEN);
    install(NEW_BASE, handler, sizeof handler);
    CHECK_EQ(*ram(NEW_BASE + 0x8000), handler[0]);
    open_smram(SMRAM_ON);
    CHECK(*ram(NEW_BASE + 0x8000) != handler[0]);
    *ram(NEW_BASE + 0x8000) = 0xf4; // goes nowhere
    // The default handler moves SMBASE: mov dword [0xff00 from segment 0x3000], 0xa0000; rsm
    static constexpr uint8_t move[] = {0xb8, 0x00, 0x30, 0x8e, 0xd8, 0x66, 0xc7, 0x06,
                                       0x00, 0xff, 0x00, 0x00, 0x0a, 0x00, 0x0f, 0xaa};
    install(DEFAULT_BASE, move, sizeof move);
    outb(APM, 0x20);
    clear_notes();
    outb(APM, 0x21);
    CHECK_EQ(notes().count, 1);
    CHECK_EQ(notes().cs, NEW_BASE >> 4);
    CHECK(saved<uint32_t>(NEW_BASE, 0xff00) != NEW_BASE);
    open_smram(SMRAM_OPEN);
    CHECK_EQ(saved<uint32_t>(NEW_BASE, 0xff00), NEW_BASE);
}

CASE(nmis_wait_for_the_end_of_smm) {
    static unsigned volatile nmis;
    nmis = 0;
    set_handler(NMI, [](Frame*) {
        nmis = nmis + 1;
        at<uint8_t>(NOTES + 0x20) = uint8_t(notes().count); // had the handler finished?
    });
    // mov dword [0xfee00300], 0x4400: an NMI to CPU 0, which this is; then count and leave
    static constexpr uint8_t code[] = {0x66, 0x67, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x44, 0x00, 0x00, // ICR
                                       0x90, 0x90, 0x90, 0xff, 0x06, 0x00, 0x06,                               // inc
                                       0x0f, 0xaa};
    install(NEW_BASE, code, sizeof code);
    apic_write(APIC_ICR_HIGH, 0);
    clear_notes();
    at<uint8_t>(NOTES + 0x20) = 0;
    outb(APM, 0x22);
    for (unsigned i = 0; i < 1000 && !nmis; ++i) pause();
    CHECK_EQ(nmis, 1);
    CHECK_EQ(at<uint8_t>(NOTES + 0x20), 1);
    set_handler(NMI, nullptr);
    apm_smi(false);
    open_smram(SMRAM_OFF);
}
