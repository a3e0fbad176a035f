// IA32_APIC_BASE and its mode transitions (SDM section 10.12.5), x2APIC register access, IA32_TSC_DEADLINE.
#include "devices/irq/local_apic.h"
#include "devices/irq/local_apic_bits.h"

namespace vmm::dev {
using namespace apic;

namespace {
// The bits software may set in each x2APIC register but the ICR (SDM table 10-6 and the register figures); nullopt:
// not writable. Read-only status bits are tolerated, as hardware does.
std::optional<std::uint32_t> x2apic_writable(unsigned index) {
    switch (index) {
    case reg_tpr:
    case reg_self_ipi: return 0xff;
    case reg_eoi:
    case reg_esr: return 0;
    case reg_svr: return svr_writable;
    case reg_lvt_timer: return 0x710ff;
    case reg_lvt_thermal:
    case reg_lvt_performance: return 0x117ff;
    case reg_lvt_lint0:
    case reg_lvt_lint1: return 0x1f7ff;
    case reg_lvt_error: return 0x110ff;
    case reg_timer_initial: return 0xffffffff;
    case reg_timer_divide: return 0xb;
    default: return std::nullopt;
    }
}
} // namespace

bool LocalApic::owns_msr(std::uint32_t index) {
    return index == msr_apic_base || index == msr_tsc_deadline || (index & ~0xffu) == msr_x2apic;
}

std::uint64_t LocalApic::mmio_base() const { return state_.apic_base & ~0xfffull; }

std::optional<std::uint64_t> LocalApic::read_msr(std::uint32_t index) {
    if (index == msr_apic_base) return state_.apic_base;
    if (index == msr_tsc_deadline) {
        if (!config_.tsc_deadline) return std::nullopt;
        run_timer_up_to_now();
        return state_.tsc_deadline;
    }
    if ((index & ~0xffu) != msr_x2apic || !x2apic()) return std::nullopt;
    return read_x2apic(index & 0xff);
}

bool LocalApic::write_msr(std::uint32_t index, std::uint64_t value) {
    if (index == msr_apic_base) return write_apic_base(value);
    if (index == msr_tsc_deadline) {
        if (config_.tsc_deadline) write_tsc_deadline(value);
        return config_.tsc_deadline;
    }
    return (index & ~0xffu) == msr_x2apic && x2apic() && write_x2apic(index & 0xff, value);
}

std::optional<std::uint64_t> LocalApic::read_x2apic(unsigned index) {
    if (index == reg_icr_low) return state_.icr;
    if (index == reg_icr_high || index == reg_dfr || index == reg_apr) return std::nullopt; // not there in x2APIC mode
    return read_register(index);
}

bool LocalApic::write_x2apic(unsigned index, std::uint64_t value) {
    if (index == reg_icr_low) {
        if (std::uint32_t(value) & ~(icr_low_writable | icr_status)) return false;
        state_.icr = value & ~std::uint64_t(icr_status);
        send_ipi();
        return true;
    }
    std::optional<std::uint32_t> writable = x2apic_writable(index);
    if (!writable || (value & ~std::uint64_t(*writable))) return false;
    if (index != reg_self_ipi) return write_register(index, std::uint32_t(value));
    if (value < 16)
        raise_error(esr_send_illegal_vector);
    else
        receive({.vector = std::uint8_t(value)});
    return true;
}

bool LocalApic::write_apic_base(std::uint64_t value) {
    std::uint64_t address_mask = ((1ull << config_.physical_address_bits) - 1) & ~0xfffull;
    std::uint64_t valid = address_mask | base_bsp | base_enable | (config_.x2apic ? base_x2apic : 0);
    if (value & ~valid) return false;
    bool const to_enabled = value & base_enable, to_x2apic = value & base_x2apic;
    if (to_x2apic && !to_enabled) return false;             // an invalid state
    if (x2apic() && to_enabled && !to_x2apic) return false; // x2APIC leaves only to disabled
    if (!enabled() && to_x2apic) return false;              // and is entered only from xAPIC mode
    bool const was_enabled = enabled(), was_x2apic = x2apic();
    state_.apic_base = (value & ~base_bsp) | (state_.apic_base & base_bsp); // which CPU is BSP was settled by hardware
    if (was_enabled && !to_enabled) reset_registers();
    if (!was_x2apic && to_x2apic) enter_x2apic();
    update_pending();
    return true;
}

void LocalApic::enter_x2apic() {
    state_.id = config_.id;
    state_.ldr = (config_.id >> 4) << 16 | 1u << (config_.id & 15); // SDM section 10.12.10.2
    state_.icr &= 0xffffffff;
}

} // namespace vmm::dev
