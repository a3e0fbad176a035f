// BootEntry: the CPU state a directly loaded kernel starts in. Plain data, independent of any CPU class: the machine
// copies it into the boot processor's registers.
#pragma once
#include "vmm/memory/address_space.h"

#include <array>
#include <cstdint>

namespace vmm::firmware {

// Index into BootEntry::gpr; the encoding order of the instruction set.
enum BootGpr : unsigned { boot_rax, boot_rcx, boot_rdx, boot_rbx, boot_rsp, boot_rbp, boot_rsi, boot_rdi };

// A segment register with its hidden part. `attributes` has the layout of VMX access rights (Intel SDM vol. 3, "Guest
// Register State"): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15. `limit` is in bytes, already scaled by G.
struct BootSegment {
    std::uint16_t selector = 0;
    std::uint16_t attributes = 0;
    std::uint32_t limit = 0;
    std::uint64_t base = 0;
};

// GDTR or IDTR.
struct BootTable {
    std::uint64_t base = 0;
    std::uint16_t limit = 0;
};

enum class BootMode {
    protected32, // flat 32-bit protected mode, paging off
    long64,      // 64-bit mode, memory below 4 GiB mapped to itself
};

// Registers not named here keep their reset values. The descriptors lie in guest memory at gdt.base as well.
struct BootEntry {
    BootMode mode = BootMode::protected32;
    std::uint64_t rip = 0;
    std::uint64_t rflags = 2; // interrupts off
    std::array<std::uint64_t, 16> gpr{};
    std::uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
    BootSegment cs, ds, es, fs, gs, ss, tr, ldt;
    BootTable gdt, idt;
};

} // namespace vmm::firmware
