// The register file: the MMIO page, LVT, SVR, ESR, ICR.
#include "devices/irq/local_apic.h"
#include "devices/irq/local_apic_bits.h"

namespace vmm::dev {
using namespace apic;

std::optional<std::uint32_t> LocalApic::read_register(unsigned index) {
    if (index >= reg_isr && index < reg_esr) {
        auto const& bits = index < reg_tmr ? state_.isr : index < reg_irr ? state_.tmr : state_.irr;
        return bits[index % 8];
    }
    if (index >= reg_lvt_timer && index <= reg_lvt_error) return state_.lvt[index - reg_lvt_timer];
    switch (index) {
    case reg_id: return x2apic() ? state_.id : state_.id << 24;
    case reg_version: return version;
    case reg_tpr: return state_.tpr;
    case reg_apr: return 0; // no arbitration bus since the Pentium 4
    case reg_ppr: return ppr();
    case reg_ldr: return state_.ldr;
    case reg_dfr: return state_.dfr;
    case reg_svr: return state_.svr;
    case reg_esr: return state_.esr;
    case reg_icr_low: return std::uint32_t(state_.icr);
    case reg_icr_high: return std::uint32_t(state_.icr >> 32);
    case reg_timer_initial: return state_.timer_initial;
    case reg_timer_current: return timer_current();
    case reg_timer_divide: return state_.timer_divide;
    default: return std::nullopt;
    }
}

// False when there is no such register or it cannot be written.
bool LocalApic::write_register(unsigned index, std::uint32_t value) {
    if (index >= reg_lvt_timer && index <= reg_lvt_error) return write_lvt(Lvt(index - reg_lvt_timer), value), true;
    switch (index) {
    case reg_id: state_.id = value >> 24; return true;
    case reg_tpr: set_tpr(std::uint8_t(value)); return true;
    case reg_eoi: end_of_interrupt(); return true;
    case reg_ldr: state_.ldr = value & 0xff000000; return true;
    case reg_dfr: state_.dfr = value | 0x0fffffff; return true;
    case reg_svr: write_svr(value); return true;
    case reg_esr: write_esr(); return true;
    case reg_icr_high: state_.icr = (state_.icr & 0xffffffff) | std::uint64_t(value & 0xff000000) << 32; return true;
    case reg_icr_low:
        state_.icr = (state_.icr & ~0xffffffffull) | (value & icr_low_writable);
        send_ipi();
        return true;
    case reg_timer_initial: write_timer_initial(value); return true;
    case reg_timer_divide: write_timer_divide(value); return true;
    default: return false;
    }
}

void LocalApic::write_lvt(Lvt entry, std::uint32_t value) {
    constexpr std::array<std::uint32_t, lvt_count> writable = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};
    std::uint32_t mask = writable[entry];
    if (entry == timer && !config_.tsc_deadline) mask &= ~(1u << 18);
    run_timer_up_to_now(); // an expiry that is due belongs to the old contents
    std::uint32_t old = state_.lvt[entry];
    std::uint32_t lvt = (value & mask) | (old & lvt_remote_irr);
    if (!(state_.svr & svr_enable)) lvt |= lvt_masked;
    if (!(lvt & lvt_level)) lvt &= ~lvt_remote_irr;
    if (entry == timer) {
        if ((lvt >> 17 & 3) == 3) lvt &= ~(1u << 17); // reserved; the deadline bit wins
        if ((lvt ^ old) >> 17 & 3) timer_mode_changes(lvt);
    }
    state_.lvt[entry] = lvt;
    if (entry == timer) arm_timer();
    if (entry == lint0 || entry == lint1) sample_lint(entry - lint0, false);
    update_pending();
}

void LocalApic::write_svr(std::uint32_t value) {
    state_.svr = value & svr_writable;
    if (state_.svr & svr_enable) return;
    for (unsigned entry = 0; entry < lvt_count; ++entry) // SDM section 10.4.7.2
        write_lvt(Lvt(entry), state_.lvt[entry] | lvt_masked);
}

void LocalApic::write_esr() {
    state_.esr = state_.esr_pending;
    state_.esr_pending = 0;
}

void LocalApic::send_ipi() {
    auto low = std::uint32_t(state_.icr);
    ApicMessage message{.vector = std::uint8_t(low),
                        .mode = DeliveryMode((low >> 8) & 7),
                        .logical = (low & icr_logical) != 0,
                        .wide_destination = x2apic(),
                        .destination = std::uint32_t(x2apic() ? state_.icr >> 32 : state_.icr >> 56)};
    unsigned shorthand = low >> 18 & 3; // none, self, all, all but self
    bool const vectored = message.mode == DeliveryMode::fixed || message.mode == DeliveryMode::lowest_priority;
    if (message.mode == DeliveryMode(3) || message.mode == DeliveryMode::ext_int || (shorthand == 1 && !vectored)) {
        needs_.log.guest_error("apic {}: IPI with invalid ICR {:#x}", state_.id, state_.icr);
        return;
    }
    if (vectored && message.vector < 16) {
        needs_.log.guest_error("apic {}: IPI with vector {}, below 16", state_.id, message.vector);
        return raise_error(esr_send_illegal_vector);
    }
    // INIT level de-assert only synchronised arbitration IDs, which are gone.
    if (message.mode == DeliveryMode::init && (low & icr_level) && !(low & icr_assert)) return;
    switch (shorthand) {
    case 0: needs_.bus.deliver(message); break;
    case 1: receive(message); break;
    case 2: needs_.bus.deliver_to_all(message, nullptr); break;
    case 3: needs_.bus.deliver_to_all(message, this); break;
    }
}

// Registers are 32 bits wide at multiples of 16; other accesses are undefined (SDM section 10.4.1). Ours read the bytes
// where they are and ignore writes.
std::uint64_t LocalApic::read(std::uint64_t offset, unsigned size) {
    if (!mmio_enabled()) return ~0ull >> (64 - 8 * size);
    std::optional<std::uint32_t> value = read_register(unsigned(offset >> 4) & 0xff);
    if (!value && offset >> 4 != reg_eoi) {
        needs_.log.guest_error("apic {}: read of register {:#x}, which does not exist", state_.id, offset & 0xff0);
        raise_error(esr_illegal_register);
    }
    unsigned byte = offset & 15;
    if (byte >= 4) return 0;
    return (std::uint64_t(value.value_or(0)) >> (8 * byte)) & (~0ull >> (64 - 8 * size));
}

void LocalApic::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (!mmio_enabled()) return;
    if ((offset & 15) != 0 || size < 4) {
        needs_.log.guest_error(
            "apic {}: {}-byte write of {:#x} at {:#x}: registers are written as 4 bytes at multiples of 16", state_.id,
            size, value, offset);
        return;
    }
    unsigned index = unsigned(offset >> 4) & 0xff;
    if (write_register(index, std::uint32_t(value))) return;
    bool exists = read_register(index).has_value();
    needs_.log.guest_error("apic {}: write of {:#x} to register {:#x}, which {}", state_.id, value, offset,
                           exists ? "is read-only" : "does not exist");
    if (!exists) raise_error(esr_illegal_register);
}

} // namespace vmm::dev
