// Mode: everything about the CPU's state that a translated block depends on besides its bytes. Part of the block key.
#pragma once
#include <cstdint>

namespace vmm::tcg::x86 {

// A value type over one 64-bit word; computed by compute_mode() (system.h) after anything that may change it.
struct Mode {
    std::uint64_t bits = 0;

    enum : std::uint64_t {
        code16 = 0,
        code32 = 1,
        code64 = 2,
        code_mask = 3,    // CS.D / CS.L
        stack32 = 1 << 2, // SS.B (not set in 64-bit code, where the stack is 64 bits)
        cpl_shift = 3,
        cpl_mask = 3 << 3,
        protected_mode = 1 << 5, // CR0.PE and not VM86
        vm86 = 1 << 6,
        flat = 1 << 7, // CS, DS, ES, SS: base 0, limit 4 GiB, usable and (data) writable: no segment arithmetic needed
        cr0_em = 1 << 8,
        cr0_ts = 1 << 9,
        cr0_mp = 1 << 10,
        osfxsr = 1 << 11,          // CR4.OSFXSR
        avx = 1 << 12,             // CR4.OSXSAVE and XCR0 enables SSE and AVX
        fp_trap = 1 << 13,         // some SIMD exception is unmasked in MXCSR: check after each operation
        single = 1 << 14,          // blocks of one instruction: TF, interrupt shadow, debug registers armed
        long_mode = 1 << 15,       // EFER.LMA (64-bit or compatibility)
        alignment_check = 1 << 16, // CR0.AM, EFLAGS.AC, CPL 3
        osxmmexcpt = 1 << 17,      // CR4.OSXMMEXCPT: #XM rather than #UD
        protected_or_vm = protected_mode | vm86,
    };
    bool is(std::uint64_t bit) const { return bits & bit; }
    unsigned code_bytes() const { return 2u << (bits & code_mask); } // 2, 4, 8
    bool is64() const { return (bits & code_mask) == code64; }
    unsigned cpl() const { return unsigned(bits & cpl_mask) >> cpl_shift; }
    unsigned stack_bytes() const { return is64() ? 8 : is(stack32) ? 4 : 2; }
    friend bool operator==(Mode, Mode) = default;
};

} // namespace vmm::tcg::x86
