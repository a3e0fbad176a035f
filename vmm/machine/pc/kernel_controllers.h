// KernelControllers: interrupt controllers that KVM runs in the host's kernel in place of the board's own.
//
// The board keeps its devices. While the machine runs they rest, and the kernel's chips have their state
// (kernel-irqchip =on: both PICs, I/O APIC and local APICs; split: the local APICs). When it stops the state comes
// back: so a saved machine, a reset and `info pic` look the same whoever runs the chips.
#pragma once
#include "devices/core/irq_line.h"
#include "vmm/base/thread_annotations.h"
#include "vmm/kvm/kvm_irq.h"
#include "vmm/machine/pc/kernel_chips.h"

#include <array>
#include <vector>

namespace vmm {

// Device lock held for every member but add_vcpu, forget_vcpus and settle.
class KernelControllers final : public dev::RemoteApics {
public:
    // `machine` outlives it and has kernel-irqchip=on or split.
    KernelControllers(kvm::KvmMachine& machine, Log& log);

    // In the order of the local APICs.
    void add_vcpu(kvm::KvmVcpu& vcpu) { vcpus_.push_back(&vcpu); }
    void forget_vcpus();

    struct Board {
        Mutex& device_lock;
        dev::ApicBus& bus;
        dev::I8259Pair& pic;
        dev::IoApic& io_apic;
        std::vector<dev::LocalApic*> apics;
        TimerQueue& timers;
        dev::TscSource const& tsc;
        std::uint64_t io_apic_base = 0;
    };
    // The devices of the board, once; they outlive its use.
    void set_board(Board board);
    // Before hand_back(), the vCPUs out of guest code: what the kernel holds back until a vCPU enters goes its way.
    Result<void> settle();
    // The vCPUs are out of guest code. The kernel takes the devices' state over, and the devices rest in their reset
    // state; or the other way. Nothing when that is so already. Errors: a call the kernel refuses.
    Result<void> take_over();
    Result<void> hand_back();

    // Whether PICs and I/O APIC are the kernel's too; then every pin's level goes through drive().
    bool has_pins() const { return machine_.options().irqchip == kvm::KernelIrqchip::on; }
    // Remembers the level; true when the kernel's chips took it, false when the board's are to.
    bool drive(unsigned gsi, bool level);

    void send(std::uint64_t address, std::uint32_t data) override;
    void redirections_changed() override;

private:
    template <class T> Result<void> vm_call(char const* name, unsigned long request, T* argument);
    Result<void> push_apics();
    Result<void> pull_apics();
    Result<void> push_chips();
    Result<void> pull_chips();
    Result<void> assert_levels();
    void end_of_interrupt(std::uint8_t vector);
    void end_unreported_interrupts();

    kvm::KvmMachine& machine_;
    kvm::KvmIrqs irqs_;
    Log& log_;
    std::vector<kvm::KvmVcpu*> vcpus_;
    std::optional<Board> board_;
    std::uint32_t levels_ = 0;            // of the pins, by GSI
    bool live_ = false;                   // the kernel's chips have the state
    std::vector<std::uint32_t> settled_;  // what settle() told of each APIC timer; empty: not asked
    std::vector<std::uint32_t> left_out_; // initial counts of APIC timers that are over, which the kernel does not have
};

} // namespace vmm
