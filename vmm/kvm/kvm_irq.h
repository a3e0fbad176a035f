// Interrupts of a KvmMachine whose controllers (or some of them) are in the kernel: lines, messages, eventfds.
#pragma once
#include "vmm/kvm/kvm_machine.h"

namespace vmm::kvm {

// Where a GSI goes: an MSI message, or a pin of an in-kernel controller.
struct MsiMessage {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
};

// An ioeventfd: guest writes to an address or port that signal an eventfd without an exit.
struct IoEvent {
    GuestPhys address = 0;
    unsigned size = 0; // 0, 1, 2, 4, 8; 0: any
    bool port = false;
    bool match_data = false; // only this value
    std::uint64_t data = 0;
};

// Not thread-safe but for the two injecting members (any thread). Wants kernel-irqchip=on or split for all but
// ioeventfds.
class KvmIrqs {
public:
    explicit KvmIrqs(KvmMachine& machine) : machine_(machine) {}

    // Any thread.
    Result<void> set_line(unsigned gsi, bool level);
    Result<void> signal_msi(MsiMessage message);

    // The PC's wiring: GSI 0-15 to both PICs and the I/O APIC (0 to pin 2), 16-23 to the I/O APIC (kernel-irqchip=on).
    Result<void> set_pc_routes();
    // Adds or changes a GSI (24 and up) that is an MSI message.
    Result<void> route_msi(unsigned gsi, MsiMessage message);

    // The same without telling the kernel, for many at once; `remove` takes the route away. Then commit().
    void stage_msi(unsigned gsi, MsiMessage message, bool remove);
    Result<void> commit();

    // An eventfd whose signal raises `gsi`. With `resample_fd` (level interrupts) the kernel lowers it on EOI and
    // signals that fd, so that the owner may raise it again.
    Result<void> attach_irqfd(int fd, unsigned gsi, int resample_fd = -1);
    Result<void> detach_irqfd(int fd, unsigned gsi);
    Result<void> attach_ioeventfd(int fd, IoEvent const& event) { return ioeventfd(fd, event, true); }
    Result<void> detach_ioeventfd(int fd, IoEvent const& event) { return ioeventfd(fd, event, false); }

    static constexpr unsigned max_routes = 1024;

private:
    Result<void> ioeventfd(int fd, IoEvent const& event, bool attach);
    KvmMachine& machine_;
    std::vector<kvm_irq_routing_entry> routes_;
};

} // namespace vmm::kvm
