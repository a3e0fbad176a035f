#include "vmm/tcg/guest/x86/events.h"

#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/exceptions.h"
#include "vmm/tcg/guest/x86/segments.h"
#include "vmm/tcg/guest/x86/smm.h"
#include "vmm/tcg/guest/x86/system.h"

namespace vmm::tcg::x86 {

static bool interrupt_allowed(State const& s) { return (s.rflags & flag::if_) && !s.interrupt_shadow; }

bool event_waits(State const& s, bool interrupt) {
    bool init = s.init_pending && !s.in_smm;
    if (s.activity == Activity::shutdown) return init;
    if (s.activity == Activity::wait_for_sipi) return init || s.sipi_pending;
    return s.event_pending || init || (s.smi_pending && !s.in_smm) || (s.nmi_pending && !s.nmi_blocked) ||
           (interrupt && interrupt_allowed(s));
}

// An event another engine had accepted but not delivered when its state was taken. Faults and software interrupts come
// again by themselves, for RIP is still at the instruction.
static bool deliver_carried_event(X86Context& c) {
    State& s = c.state;
    bool external = !s.event_is_software && (s.event_vector >= 32 || s.event_vector == vec::nmi);
    s.event_pending = false;
    if (!external) return false;
    deliver_interrupt(c, s.event_vector, s.event_vector == vec::nmi);
    return true;
}

bool handle_events(X86Context& c, bool bsp) {
    State& s = c.state;
    bool init = s.init_pending && !s.in_smm; // it waits for the end of SMM
    if (s.event_pending && s.activity == Activity::running && !init && deliver_carried_event(c)) return true;
    bool executes = s.activity == Activity::running || s.activity == Activity::halted;
    if (s.smi_pending && !s.in_smm && executes && !s.interrupt_shadow && !s.debug_shadow) {
        enter_smm(c);
        return true;
    }
    if (init) {
        apply_init(s, c.model->signature(), bsp);
        state_replaced(c);
        return true;
    }
    if (s.activity == Activity::wait_for_sipi) {
        if (!s.sipi_pending) return false;
        s.sipi_pending = false;
        s.activity = Activity::running;
        s.seg[cs].selector = std::uint16_t(s.sipi_vector << 8);
        s.seg[cs].base = std::uint64_t(s.sipi_vector) << 12;
        s.rip = 0;
        update_mode(c);
        return true;
    }
    s.sipi_pending = false; // means nothing to a CPU that does not wait for it
    if (s.activity == Activity::shutdown) return false;
    if (s.nmi_pending && !s.nmi_blocked && !s.debug_shadow) {
        s.nmi_pending = false;
        s.activity = Activity::running;
        deliver_interrupt(c, vec::nmi, true);
        return true;
    }
    if (!interrupt_allowed(s) || !c.bus->interrupt_pending()) return false;
    auto vector = c.bus->acknowledge_interrupt();
    if (!vector) return false;
    s.activity = Activity::running;
    deliver_interrupt(c, *vector);
    return true;
}

} // namespace vmm::tcg::x86
