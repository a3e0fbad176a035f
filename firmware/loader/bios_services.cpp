#include "firmware/loader/bios_services.h"

#include "vmm/base/endian.h"

namespace vmm::firmware {

namespace {
// Handlers in 16-bit code; each begins at a multiple of 16 bytes from handlers_at.
enum Handler : std::uint16_t { ignore, unsupported, equipment, memory_size, master_irq, slave_irq, handler_count };
constexpr std::uint16_t handlers_at = 0x10; // in the EBDA, after its size
constexpr std::uint16_t handler_bytes = 16;

constexpr std::uint8_t code[handler_count][handler_bytes] = {
    {0xcf}, // iret
    {0x55, 0x89, 0xe5, 0x80, 0x4e, 0x06, 0x01, 0x5d, 0xb4, 0x86,
     0xcf}, // push bp; mov bp, sp; or byte [bp+6], 1; pop bp; mov ah, 86h; iret
    {0x1e, 0x31, 0xc0, 0x8e, 0xd8, 0xa1, 0x10, 0x04, 0x1f,
     0xcf}, // push ds; xor ax, ax; mov ds, ax; mov ax, [410h]; pop ds; iret
    {0x1e, 0x31, 0xc0, 0x8e, 0xd8, 0xa1, 0x13, 0x04, 0x1f, 0xcf}, // the same with [413h]
    {0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf},                   // push ax; mov al, 20h; out 20h, al; pop ax; iret
    {0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58,
     0xcf}, // push ax; mov al, 20h; out a0h, al; out 20h, al; pop ax; iret
};

// The PC BIOS's assignment of vectors; the 8259 pair is at 08h and 70h.
Handler handler_of(unsigned vector) {
    if (vector < 0x08) return ignore;
    if (vector < 0x10) return master_irq;
    if (vector == 0x10) return ignore;
    if (vector == 0x11) return equipment;
    if (vector == 0x12) return memory_size;
    if (vector >= 0x70 && vector < 0x78) return slave_irq;
    return unsupported;
}
} // namespace

Result<void> write_bios_services(LoadContext& context) {
    Bytes vectors(0x400);
    for (unsigned v = 0; v < 256; ++v) {
        store_le(&vectors[4 * v], std::uint16_t(handlers_at + handler_of(v) * handler_bytes));
        store_le(&vectors[4 * v + 2], std::uint16_t(ebda_base >> 4));
    }
    TRY(context.write(0, vectors, "the interrupt vector table"));
    return context.write(ebda_base + handlers_at, {&code[0][0], sizeof code}, "the interrupt handlers");
}

} // namespace vmm::firmware
