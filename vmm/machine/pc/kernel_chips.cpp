#include "vmm/machine/pc/kernel_chips.h"

#include <algorithm>
#include <cstring>

namespace vmm {

namespace {

constexpr std::uint8_t cascade_bit = 1u << dev::I8259Pair::cascade;
// PIIX lets software make these inputs level triggered (KVM keeps the mask in the state).
constexpr std::array<std::uint8_t, 2> elcr_mask = {0xf8, 0xde};
// Bits of a redirection entry that are state: all but Delivery Status and reserved ones.
constexpr std::uint64_t redirection_bits = 0xff00'0000'0001'efff;
constexpr std::uint64_t redirection_level = 1u << 15;
constexpr std::uint32_t lvt_masked = 1u << 16, lvt_deadline_mode = 1u << 18;

// Registers of the APIC page (SDM vol. 3 table 10-1).
enum Register : unsigned {
    r_id = 0x20,
    r_tpr = 0x80,
    r_ldr = 0xd0,
    r_dfr = 0xe0,
    r_svr = 0xf0,
    r_isr = 0x100,
    r_tmr = 0x180,
    r_irr = 0x200,
    r_esr = 0x280,
    r_icr = 0x300,
    r_icr_high = 0x310,
    r_initial = 0x380,
    r_current = 0x390,
    r_divide = 0x3e0,
};
constexpr std::array<unsigned, dev::LocalApic::lvt_count> r_lvt = {0x320, 0x330, 0x340, 0x350, 0x360, 0x370};

std::uint32_t get(kvm_lapic_state const& page, unsigned at) {
    std::uint32_t value;
    std::memcpy(&value, page.regs + at, 4);
    return value;
}
void put(kvm_lapic_state& page, unsigned at, std::uint32_t value) { std::memcpy(page.regs + at, &value, 4); }

std::uint64_t scale(std::uint64_t ticks, std::uint64_t to, std::uint64_t from) {
    return std::uint64_t(static_cast<unsigned __int128>(ticks) * to / from);
}

// Nanoseconds a count of the APIC timer takes, as LocalApic::timer_tick_ns.
std::uint64_t tick_of(dev::LocalApic::State const& s) {
    unsigned code = (s.timer_divide & 3) | (s.timer_divide >> 1 & 4);
    return 1ull << ((code + 1) & 7);
}

} // namespace

kvm_pic_state to_kvm(dev::I8259Pair::Chip const& chip, unsigned index, std::uint16_t lines) {
    kvm_pic_state k{};
    auto pins = std::uint8_t(lines >> 8 * index);
    k.irr = chip.irr, k.imr = chip.imr, k.isr = chip.isr;
    k.last_irr = pins;
    if (index == 0) k.irr &= ~cascade_bit, k.last_irr &= ~cascade_bit; // which the kernel derives
    k.priority_add = chip.first;
    k.irq_base = chip.vector_base;
    k.read_reg_select = chip.read_isr;
    k.poll = chip.poll;
    k.special_mask = chip.special_mask;
    k.init_state = chip.expected_icw ? std::uint8_t(chip.expected_icw - 1) : 0;
    k.auto_eoi = chip.auto_eoi;
    k.rotate_on_auto_eoi = chip.rotate_on_auto_eoi;
    k.special_fully_nested_mode = chip.special_fully_nested;
    k.init4 = chip.icw4_needed;
    k.elcr = chip.elcr;
    k.elcr_mask = elcr_mask[index];
    return k;
}

dev::I8259Pair::Chip from_kvm(kvm_pic_state const& k, unsigned index, std::uint16_t lines) {
    dev::I8259Pair::Chip chip;
    chip.irr = k.irr, chip.imr = k.imr, chip.isr = k.isr;
    chip.lines = std::uint8_t(lines >> 8 * index);
    if (index == 0) chip.irr &= ~cascade_bit, chip.lines &= ~cascade_bit; // follows from the slave
    chip.first = k.priority_add & 7;
    chip.vector_base = k.irq_base & 0xf8;
    chip.read_isr = k.read_reg_select;
    chip.poll = k.poll;
    chip.special_mask = k.special_mask;
    chip.expected_icw = k.init_state ? std::uint8_t((k.init_state & 3) + 1) : 0;
    chip.auto_eoi = k.auto_eoi;
    chip.rotate_on_auto_eoi = k.rotate_on_auto_eoi;
    chip.special_fully_nested = k.special_fully_nested_mode;
    chip.icw4_needed = k.init4;
    chip.elcr = k.elcr & elcr_mask[index];
    return chip;
}

kvm_ioapic_state to_kvm(dev::IoApic::State const& s, std::uint64_t base) {
    kvm_ioapic_state k{};
    k.base_address = base;
    k.ioregsel = s.select;
    k.id = s.id >> 24;
    for (unsigned pin = 0; pin < dev::IoApic::pins; ++pin) {
        k.redirtbl[pin].bits = s.redirection[pin];
        // A request of an edge has been sent; a level stays one.
        if (s.redirection[pin] & redirection_level) k.irr |= s.lines & 1u << pin;
    }
    return k;
}

dev::IoApic::State from_kvm(kvm_ioapic_state const& k, std::uint32_t lines) {
    dev::IoApic::State s;
    s.id = (k.id & 15) << 24;
    s.select = std::uint8_t(k.ioregsel);
    s.lines = lines;
    for (unsigned pin = 0; pin < dev::IoApic::pins; ++pin) s.redirection[pin] = k.redirtbl[pin].bits & redirection_bits;
    return s;
}

std::uint32_t to_kvm(dev::LocalApic const& apic, kvm::KernelApic& k, TscReading tsc) {
    dev::LocalApic::State const& s = apic.state();
    k.apic_base = s.apic_base;
    kvm_lapic_state& page = k.page;
    put(page, r_id, s.id << 24); // in both modes, for KVM without KVM_CAP_X2APIC_API
    put(page, r_tpr, s.tpr);
    put(page, r_ldr, s.ldr);
    put(page, r_dfr, s.dfr);
    put(page, r_svr, s.svr);
    for (unsigned n = 0; n < 8; ++n) {
        put(page, r_isr + 16 * n, s.isr[n]);
        put(page, r_tmr + 16 * n, s.tmr[n]);
        put(page, r_irr + 16 * n, s.irr[n]);
    }
    put(page, r_esr, s.esr);
    put(page, r_icr, std::uint32_t(s.icr));
    put(page, r_icr_high, std::uint32_t(s.icr >> 32));
    for (unsigned n = 0; n < r_lvt.size(); ++n) put(page, r_lvt[n], s.lvt[n]);
    std::uint32_t current = apic.timer_current();
    bool over = !current && s.timer_deadline < 0;
    put(page, r_initial, over ? 0 : s.timer_initial);
    put(page, r_current, current);
    put(page, r_divide, s.timer_divide);
    std::uint64_t left = s.tsc_deadline > tsc.ticks ? s.tsc_deadline - tsc.ticks : 0;
    k.tsc_deadline = s.tsc_deadline ? k.tsc + scale(left, k.tsc_hz, tsc.hz) : 0;
    return over ? s.timer_initial : 0;
}

dev::LocalApic::State from_kvm(kvm::KernelApic const& k, Nanoseconds now, TscReading tsc) {
    dev::LocalApic::State s;
    kvm_lapic_state const& page = k.page;
    s.apic_base = k.apic_base;
    s.id = get(page, r_id) >> 24;
    s.tpr = std::uint8_t(get(page, r_tpr));
    s.ldr = get(page, r_ldr), s.dfr = get(page, r_dfr), s.svr = get(page, r_svr);
    for (unsigned n = 0; n < 8; ++n) {
        s.isr[n] = get(page, r_isr + 16 * n);
        s.tmr[n] = get(page, r_tmr + 16 * n);
        s.irr[n] = get(page, r_irr + 16 * n);
    }
    s.esr = get(page, r_esr);
    s.icr = get(page, r_icr) | std::uint64_t(get(page, r_icr_high)) << 32;
    for (unsigned n = 0; n < r_lvt.size(); ++n) s.lvt[n] = get(page, r_lvt[n]);
    s.timer_initial = get(page, r_initial);
    s.timer_divide = get(page, r_divide) & 0xb;
    std::uint64_t tick = tick_of(s);
    std::uint32_t current = std::min(get(page, r_current), s.timer_initial);
    s.timer_start = now - Nanoseconds((s.timer_initial - current) * tick);
    // Fixed here: by the time it is adopted it may be over.
    bool counts = !(s.lvt[dev::LocalApic::timer] & (lvt_masked | lvt_deadline_mode));
    if (counts && current) s.timer_deadline = now + Nanoseconds(current * tick);
    std::uint64_t left = k.tsc_deadline > k.tsc ? k.tsc_deadline - k.tsc : 0;
    if (k.tsc_deadline) s.tsc_deadline = tsc.ticks + scale(left, tsc.hz, k.tsc_hz) + (left == 0);
    return s;
}

void put_back(dev::LocalApic::State& s, std::uint32_t timer_initial, Nanoseconds now) {
    s.timer_initial = timer_initial;
    s.timer_start = now - Nanoseconds(timer_initial * tick_of(s));
    s.timer_stopped = true;
}

bool timer_ended(kvm::KernelApic const& k, std::uint32_t count) {
    std::uint32_t left = k.word(r_current);
    return count && (left == 0 || left > count);
}

} // namespace vmm
