// ApicBus: what connects local APICs, I/O APICs, MSI sources and the PIC's INTR wire, and finds a message's receivers.
#pragma once
#include "devices/core/irq_inputs.h"
#include "devices/core/msi_target.h"
#include "devices/irq/apic_message.h"
#include "vmm/base/log.h"

#include <vector>

namespace vmm::dev {

class IoApic;
class LocalApic;

// Local APICs that are not ours (in the host's kernel). Device lock held.
class RemoteApics {
public:
    virtual ~RemoteApics() = default;
    // A message in the form of an MSI (SDM section 10.11).
    virtual void send(std::uint64_t address, std::uint32_t data) = 0;
    // A redirection entry of our I/O APIC was written: the end of which interrupts we must hear of may have changed.
    virtual void redirections_changed() = 0;
};

// Owned by the board and outlives the APICs attached to it. Device lock held for every member.
class ApicBus final : public MsiTarget {
public:
    explicit ApicBus(Log& log) : log_(log), lint_(*this) {}

    // Attaches a finished APIC; the board does this once for each, in the order of the CPUs.
    void attach(LocalApic& apic) { local_.push_back(&apic); }
    void attach(IoApic& apic) { io_.push_back(&apic); }
    // While set, messages go there instead of to the attached local APICs; null: they are back.
    void set_remote(RemoteApics* remote) { remote_ = remote; }
    void redirections_changed() {
        if (remote_) remote_->redirections_changed();
    }

    // Delivers to every matching local APIC (one of them for lowest-priority). False when there was none.
    bool deliver(ApicMessage const& message);
    // The ICR's shorthands: everyone, or everyone except `except`.
    void deliver_to_all(ApicMessage const& message, LocalApic const* except);
    // A memory write of a PCI function or HPET to 0xfeexxxxx (SDM section 10.11).
    void deliver_msi(std::uint64_t address, std::uint32_t data) override;
    // A level-triggered interrupt was ended: I/O APICs clear Remote IRR and look again.
    void broadcast_eoi(std::uint8_t vector);

    // The LINT0 (PIC INTR) and LINT1 (NMI) pins, wired to every local APIC as on a PC.
    IrqLine& lint(unsigned pin) { return lint_[pin]; }
    void set_input(unsigned pin, bool level);

    static constexpr std::uint64_t msi_base = 0xfee00000, msi_size = 0x100000;

private:
    Log& log_;
    RemoteApics* remote_ = nullptr;
    std::vector<LocalApic*> local_;
    std::vector<IoApic*> io_;
    IrqInputs<ApicBus, 2> lint_;
};

} // namespace vmm::dev
