// Names of bits and numbers of the x86 architecture (Intel SDM vol. 1 and 3, AMD APM vol. 2).
#pragma once
#include <cstdint>

namespace vmm::x86 {

// General registers by encoding.
enum Gpr : std::uint8_t { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };
// Segment registers by encoding; the two system segments follow.
enum Seg : std::uint8_t { es, cs, ss, ds, fs, gs, ldtr, tr, seg_count };

// RFLAGS.
namespace flag {
inline constexpr std::uint64_t cf = 1u << 0, one = 1u << 1, pf = 1u << 2, af = 1u << 4, zf = 1u << 6, sf = 1u << 7,
                               tf = 1u << 8, if_ = 1u << 9, df = 1u << 10, of = 1u << 11, iopl = 3u << 12,
                               nt = 1u << 14, rf = 1u << 16, vm = 1u << 17, ac = 1u << 18, vif = 1u << 19,
                               vip = 1u << 20, id = 1u << 21;
inline constexpr std::uint64_t arithmetic = cf | pf | af | zf | sf | of;
} // namespace flag

namespace cr0 {
inline constexpr std::uint64_t pe = 1u << 0, mp = 1u << 1, em = 1u << 2, ts = 1u << 3, et = 1u << 4, ne = 1u << 5,
                               wp = 1u << 16, am = 1u << 18, nw = 1u << 29, cd = 1u << 30, pg = 1u << 31;
}
namespace cr4 {
inline constexpr std::uint64_t vme = 1u << 0, pvi = 1u << 1, tsd = 1u << 2, de = 1u << 3, pse = 1u << 4, pae = 1u << 5,
                               mce = 1u << 6, pge = 1u << 7, pce = 1u << 8, osfxsr = 1u << 9, osxmmexcpt = 1u << 10,
                               umip = 1u << 11, la57 = 1u << 12, vmxe = 1u << 13, smxe = 1u << 14, fsgsbase = 1u << 16,
                               pcide = 1u << 17, osxsave = 1u << 18, smep = 1u << 20, smap = 1u << 21, pke = 1u << 22;
}
namespace efer {
inline constexpr std::uint64_t sce = 1u << 0, lme = 1u << 8, lma = 1u << 10, nxe = 1u << 11, svme = 1u << 12,
                               ffxsr = 1u << 14;
}
namespace xcr0 {
inline constexpr std::uint64_t x87 = 1u << 0, sse = 1u << 1, avx = 1u << 2, opmask = 1u << 5, zmm_hi256 = 1u << 6,
                               hi16_zmm = 1u << 7, pkru = 1u << 9;
}

// Exception vectors.
namespace vec {
inline constexpr std::uint8_t de = 0, db = 1, nmi = 2, bp = 3, of = 4, br = 5, ud = 6, nm = 7, df = 8, ts = 10, np = 11,
                              ss = 12, gp = 13, pf = 14, mf = 16, ac = 17, mc = 18, xm = 19;
}

// Page-fault error code.
namespace pf_error {
inline constexpr std::uint32_t present = 1, write = 2, user = 4, reserved = 8, fetch = 16, protection_key = 32;
}

// Descriptor attributes as kept in Segment::attributes: bits 8..23 of the descriptor's second dword, shifted right
// by 8.
namespace attr {
inline constexpr std::uint16_t type_mask = 0xf, accessed = 1, writable = 2, readable = 2, conforming = 4,
                               expand_down = 4, code = 8, s = 0x10, dpl_shift = 5, dpl = 0x60, present = 0x80,
                               avl = 0x1000, l = 0x2000, db = 0x4000, g = 0x8000;
}

namespace msr {
inline constexpr std::uint32_t tsc = 0x10, platform_id = 0x17, apic_base = 0x1b, feature_control = 0x3a,
                               tsc_adjust = 0x3b, spec_ctrl = 0x48, pred_cmd = 0x49, bios_update_id = 0x8b,
                               mtrrcap = 0xfe, arch_capabilities = 0x10a, sysenter_cs = 0x174, sysenter_esp = 0x175,
                               sysenter_eip = 0x176, mcg_cap = 0x179, mcg_status = 0x17a, mcg_ctl = 0x17b,
                               perf_status = 0x198, misc_enable = 0x1a0, mtrr_physbase0 = 0x200, mtrr_fix64k = 0x250,
                               mtrr_fix16k_0 = 0x258, mtrr_fix16k_1 = 0x259, mtrr_fix4k_0 = 0x268, pat = 0x277,
                               mtrr_def_type = 0x2ff, mc0_ctl = 0x400, tsc_deadline = 0x6e0, x2apic_first = 0x800,
                               x2apic_last = 0x8ff, xss = 0xda0, efer = 0xc0000080, star = 0xc0000081,
                               lstar = 0xc0000082, cstar = 0xc0000083, sfmask = 0xc0000084, fs_base = 0xc0000100,
                               gs_base = 0xc0000101, kernel_gs_base = 0xc0000102, tsc_aux = 0xc0000103;
}

} // namespace vmm::x86
