// Register numbers (offset / 16, as x2APIC MSRs count them) and bits of the local APIC; private to local_apic*.cpp.
#pragma once
#include <cstdint>

namespace vmm::dev::apic {

enum Register : unsigned { // SDM vol. 3 table 10-1
    reg_id = 0x02,
    reg_version = 0x03,
    reg_tpr = 0x08,
    reg_apr = 0x09,
    reg_ppr = 0x0a,
    reg_eoi = 0x0b,
    reg_ldr = 0x0d,
    reg_dfr = 0x0e,
    reg_svr = 0x0f,
    reg_isr = 0x10, // eight registers each
    reg_tmr = 0x18,
    reg_irr = 0x20,
    reg_esr = 0x28,
    reg_icr_low = 0x30,
    reg_icr_high = 0x31,
    reg_lvt_timer = 0x32, // the six in LocalApic::Lvt's order
    reg_lvt_thermal = 0x33,
    reg_lvt_performance = 0x34,
    reg_lvt_lint0 = 0x35,
    reg_lvt_lint1 = 0x36,
    reg_lvt_error = 0x37,
    reg_timer_initial = 0x38,
    reg_timer_current = 0x39,
    reg_timer_divide = 0x3e,
    reg_self_ipi = 0x3f, // x2APIC only
};

inline constexpr std::uint32_t version = 0x00050014; // integrated APIC, six LVT entries

inline constexpr std::uint64_t base_bsp = 1 << 8, base_x2apic = 1 << 10, base_enable = 1 << 11;
inline constexpr std::uint64_t default_base = 0xfee00000;

inline constexpr std::uint32_t svr_enable = 1 << 8, svr_writable = 0x1ff | 1 << 9;
inline constexpr std::uint32_t lvt_masked = 1 << 16, lvt_level = 1 << 15, lvt_remote_irr = 1 << 14;
inline constexpr std::uint32_t lvt_delivery_status = 1 << 12;

inline constexpr std::uint32_t timer_one_shot = 0, timer_periodic = 1, timer_tsc_deadline = 2; // LVT bits 18..17

inline constexpr std::uint32_t esr_send_illegal_vector = 1 << 5, esr_receive_illegal_vector = 1 << 6,
                               esr_illegal_register = 1 << 7;

inline constexpr std::uint32_t icr_logical = 1 << 11, icr_status = 1 << 12, icr_assert = 1 << 14, icr_level = 1 << 15;
inline constexpr std::uint32_t icr_low_writable = 0x000ccfff;

inline constexpr std::uint32_t msr_apic_base = 0x1b, msr_tsc_deadline = 0x6e0, msr_x2apic = 0x800;

} // namespace vmm::dev::apic
