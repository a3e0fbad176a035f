// Interrupt acceptance, priorities, destinations, pins, state.
#include "devices/irq/local_apic.h"

#include "devices/irq/local_apic_bits.h"

#include <bit>

namespace vmm::dev {
using namespace apic;

namespace {
bool test(std::array<std::uint32_t, 8> const& bits, unsigned vector) { return bits[vector / 32] >> (vector % 32) & 1; }
void assign(std::array<std::uint32_t, 8>& bits, unsigned vector, bool value) {
    std::uint32_t bit = 1u << (vector % 32);
    bits[vector / 32] = value ? bits[vector / 32] | bit : bits[vector / 32] & ~bit;
}
int highest(std::array<std::uint32_t, 8> const& bits) {
    for (int word = 7; word >= 0; --word)
        if (std::uint32_t w = bits[std::size_t(word)]) return word * 32 + 31 - std::countl_zero(w);
    return -1;
}
DeliveryMode mode_of(std::uint32_t lvt) { return DeliveryMode((lvt >> 8) & 7); }
} // namespace

LocalApic::LocalApic(Needs needs, Config config)
    : needs_(needs), config_(config), timer_(needs.timers, [this] { timer_fired(); }) {
    reset();
}

bool LocalApic::enabled() const { return state_.apic_base & base_enable; }
bool LocalApic::x2apic() const { return state_.apic_base & base_x2apic; }
bool LocalApic::accepts_vectors() const { return enabled() && (state_.svr & svr_enable); }

void LocalApic::reset() {
    state_.apic_base = default_base | base_enable | (config_.bootstrap ? base_bsp : 0);
    reset_registers();
}

void LocalApic::reset_by_init() {
    std::uint32_t id = state_.id, ldr = state_.ldr;
    reset_registers();
    state_.id = id;
    if (x2apic()) state_.ldr = ldr;
}

// Everything but IA32_APIC_BASE, the pins and the identity (SDM section 10.4.7.1).
void LocalApic::reset_registers() {
    timer_.cancel();
    state_ = State{.apic_base = state_.apic_base,
                   .id = x2apic() ? config_.id : config_.id & 0xff,
                   .dfr = 0xffffffff,
                   .svr = 0xff,
                   .lint_level = state_.lint_level};
    state_.lvt.fill(lvt_masked);
    // Real firmware programs the virtual wire itself, but ROMs written for PC emulators expect the bootstrap CPU to
    // take the PIC's interrupts right after reset, as it does with the APIC disabled.
    if (config_.bootstrap) state_.lvt[lint0] = std::uint32_t(DeliveryMode::ext_int) << 8;
    update_pending();
}

void LocalApic::set_up_virtual_wire() {
    state_.svr = 0xff | svr_enable;
    write_lvt(lint0, lvt_level | std::uint32_t(DeliveryMode::ext_int) << 8);
    write_lvt(lint1, lvt_level | std::uint32_t(DeliveryMode::nmi) << 8);
}

Result<void> LocalApic::load(StateReader& from) { return adopt(TRY(load_state<State>(from))); }

Result<void> LocalApic::adopt(State const& loaded) {
    constexpr Nanoseconds latest = INT64_MAX / 2;   // leaves room to add any period
    constexpr Nanoseconds max_count_ns = 1ll << 39; // 2^32 counts at divide-by-128
    bool bad_base = (loaded.apic_base & 0x2ff) || loaded.apic_base >> config_.physical_address_bits ||
                    ((loaded.apic_base & base_x2apic) && !(config_.x2apic && (loaded.apic_base & base_enable)));
    if (bad_base) return error("the local APIC's state holds an impossible IA32_APIC_BASE {:#x}", loaded.apic_base);
    if (loaded.timer_start < -max_count_ns || loaded.timer_start > latest || loaded.timer_deadline < -1 ||
        loaded.timer_deadline > latest)
        return error("the local APIC's state holds an impossible timer");
    if (loaded.lint_level[0] > 1 || loaded.lint_level[1] > 1 || (loaded.lvt[timer] >> 17 & 3) == 3)
        return error("the local APIC's state holds values it cannot have");
    state_ = loaded;
    if (timer_is(timer_tsc_deadline) || state_.timer_deadline < 0)
        arm_timer(); // the TSC may run from another origin than when it was saved
    else
        set_timer_deadline(state_.timer_deadline);
    update_pending();
    return {};
}

std::uint8_t LocalApic::ppr() const {
    int in_service = highest(state_.isr);
    unsigned isr_class = in_service < 0 ? 0 : unsigned(in_service) & 0xf0;
    return (state_.tpr & 0xf0u) >= isr_class ? state_.tpr : std::uint8_t(isr_class);
}

void LocalApic::set_tpr(std::uint8_t value) {
    state_.tpr = value;
    update_pending();
}

bool LocalApic::ext_int_requested() const {
    if (!enabled()) return state_.lint_level[0]; // LINT0 is then the INTR pin itself
    std::uint32_t lvt = state_.lvt[lint0];
    bool wired = !(lvt & lvt_masked) && mode_of(lvt) == DeliveryMode::ext_int;
    return state_.ext_int_latched || (wired && state_.lint_level[0]);
}

int LocalApic::deliverable_vector() const {
    if (!enabled()) return -1;
    int vector = highest(state_.irr);
    return vector >= 0 && (unsigned(vector) & 0xf0) > (ppr() & 0xf0u) ? vector : -1;
}

void LocalApic::update_pending() {
    bool pending = ext_int_requested() || deliverable_vector() >= 0;
    bool was = pending_.exchange(pending, std::memory_order_acq_rel);
    if (pending && !was) needs_.cpu.interrupt_changed();
}

int LocalApic::acknowledge() {
    int vector = deliverable_vector();
    if (vector >= 0) {
        assign(state_.irr, unsigned(vector), false);
        assign(state_.isr, unsigned(vector), true);
    } else if (ext_int_requested()) {
        state_.ext_int_latched = false;
        vector = needs_.pic.acknowledge();
    }
    update_pending();
    return vector;
}

void LocalApic::accept_vector(std::uint8_t vector, bool level_triggered) {
    if (vector < 16) return raise_error(esr_receive_illegal_vector);
    assign(state_.irr, vector, true);
    assign(state_.tmr, vector, level_triggered);
    update_pending();
}

void LocalApic::end_of_interrupt() {
    int vector = highest(state_.isr);
    if (vector < 0) return; // an EOI with nothing in service, as after a spurious vector, does nothing
    assign(state_.isr, unsigned(vector), false);
    if (test(state_.tmr, unsigned(vector))) needs_.bus.broadcast_eoi(std::uint8_t(vector));
    for (unsigned pin = 0; pin < 2; ++pin) {
        std::uint32_t& lvt = state_.lvt[lint0 + pin];
        if (!(lvt & lvt_remote_irr) || std::uint8_t(lvt) != vector) continue;
        lvt &= ~lvt_remote_irr;
        sample_lint(pin, false);
    }
    update_pending();
}

// The error interrupt is raised once per kind of error until software writes ESR; an error interrupt with an illegal
// vector can therefore not feed itself.
void LocalApic::raise_error(std::uint32_t bits) {
    std::uint32_t fresh = bits & ~state_.esr_pending;
    state_.esr_pending |= bits;
    if (fresh) deliver_local(lvt_error);
}

void LocalApic::deliver_local(Lvt entry) {
    std::uint32_t lvt = state_.lvt[entry];
    if (!enabled() || (lvt & lvt_masked)) return;
    DeliveryMode mode = entry == timer || entry == lvt_error ? DeliveryMode::fixed : mode_of(lvt);
    switch (mode) {
    case DeliveryMode::fixed: accept_vector(std::uint8_t(lvt), false); break;
    case DeliveryMode::smi: needs_.cpu.smi(); break;
    case DeliveryMode::nmi: needs_.cpu.nmi(); break;
    case DeliveryMode::init:
        reset_by_init();
        needs_.cpu.init();
        break;
    case DeliveryMode::ext_int: update_pending(); break;
    default:
        needs_.log.guest_error("apic {}: LVT register {:#x} is {:#x}: delivery mode {} is reserved", state_.id,
                               0x320 + 16 * unsigned(entry), lvt, unsigned(mode));
    }
}

void LocalApic::set_lint(unsigned pin, bool level) {
    bool rising = level && !state_.lint_level[pin];
    state_.lint_level[pin] = level;
    sample_lint(pin, rising);
    update_pending();
}

void LocalApic::sample_lint(unsigned pin, bool rising) {
    if (!enabled()) {
        if (pin == 1 && rising) needs_.cpu.nmi(); // LINT1 is then the NMI pin itself
        return;
    }
    Lvt entry = pin == 0 ? lint0 : lint1;
    std::uint32_t& lvt = state_.lvt[entry];
    bool level_triggered = mode_of(lvt) == DeliveryMode::fixed && (lvt & lvt_level);
    if (!level_triggered) {
        if (rising && mode_of(lvt) != DeliveryMode::ext_int) deliver_local(entry);
    } else if (state_.lint_level[pin] && !(lvt & (lvt_masked | lvt_remote_irr))) {
        lvt |= lvt_remote_irr;
        accept_vector(std::uint8_t(lvt), true);
    }
}

bool LocalApic::is_destination(ApicMessage const& message) const {
    if (!enabled()) return false;
    std::uint32_t to = message.destination;
    if (to == (message.wide_destination ? 0xffffffffu : 0xffu)) return true;
    if (!message.logical) return to == state_.id;
    if (x2apic()) return (to >> 16) == (state_.ldr >> 16) && (to & state_.ldr & 0xffff);
    std::uint32_t logical_id = state_.ldr >> 24;
    if ((state_.dfr >> 28) == 0xf) return to & logical_id; // flat model
    // Cluster model: the upper nibble names the cluster (15: all), the lower selects its members.
    bool in_cluster = (to >> 4) == (logical_id >> 4) || (to >> 4) == 0xf;
    return in_cluster && (to & logical_id & 0xf);
}

void LocalApic::receive(ApicMessage const& message) {
    if (!enabled()) return;
    switch (message.mode) {
    case DeliveryMode::fixed:
    case DeliveryMode::lowest_priority:
        if (accepts_vectors()) accept_vector(message.vector, message.level_triggered);
        break;
    case DeliveryMode::smi: needs_.cpu.smi(); break;
    case DeliveryMode::nmi: needs_.cpu.nmi(); break;
    case DeliveryMode::init:
        reset_by_init();
        needs_.cpu.init();
        break;
    case DeliveryMode::startup: needs_.cpu.sipi(message.vector); break;
    case DeliveryMode::ext_int:
        state_.ext_int_latched = true;
        update_pending();
        break;
    }
}

} // namespace vmm::dev
