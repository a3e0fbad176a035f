#include "vmm/machine/pc/kernel_controllers.h"

#include <algorithm>
#include <utility>

namespace vmm {

namespace {
constexpr std::uint64_t entry_remote_irr = 1u << 14, entry_level = 1u << 15, entry_masked = 1u << 16,
                        entry_logical = 1u << 11;

kvm_irqchip chip_request(unsigned id) {
    kvm_irqchip chip{};
    chip.chip_id = id;
    return chip;
}
} // namespace

KernelControllers::KernelControllers(kvm::KvmMachine& machine, Log& log)
    : machine_(machine), irqs_(machine), log_(log) {}

template <class T> Result<void> KernelControllers::vm_call(char const* name, unsigned long request, T* argument) {
    int result = machine_.api().ioctl(machine_.vm_fd(), request, argument);
    if (result < 0) return kvm::kvm_error(name, result);
    return {};
}

void KernelControllers::forget_vcpus() {
    vcpus_.clear(), settled_.clear(), left_out_.clear();
    live_ = false;
}

void KernelControllers::set_board(Board board) {
    board_.emplace(std::move(board));
    // GSI 0 is the I/O APIC's pin 2.
    auto const& pics = board_->pic.state().chips;
    levels_ = pics[0].lines & ~4u;
    levels_ |= unsigned(pics[1].lines) << 8 | (board_->io_apic.state().lines & ~0xffffu);
    machine_.set_eoi_handler([this](std::uint8_t vector) { end_of_interrupt(vector); });
}

// On a vCPU's thread, without the device lock.
void KernelControllers::end_of_interrupt(std::uint8_t vector) {
    MutexLock lock(board_->device_lock);
    board_->bus.broadcast_eoi(vector);
}

Result<void> KernelControllers::take_over() {
    if (live_) return {};
    if (has_pins()) TRY(irqs_.set_pc_routes());
    TRY(push_apics());
    if (has_pins()) TRY(push_chips());
    live_ = true;
    board_->bus.set_remote(this);
    for (dev::LocalApic* apic : board_->apics) apic->reset();
    if (has_pins()) {
        board_->pic.reset();
        board_->io_apic.reset();
        TRY(assert_levels());
    } else {
        redirections_changed();
    }
    return {};
}

Result<void> KernelControllers::hand_back() {
    if (!live_) return {};
    live_ = false;
    board_->bus.set_remote(nullptr);
    TRY(pull_apics());
    if (has_pins()) return pull_chips();
    end_unreported_interrupts();
    return {};
}

Result<void> KernelControllers::settle() {
    settled_.clear();
    if (!live_) return {};
    for (kvm::KvmVcpu* vcpu : vcpus_) settled_.push_back(TRY(vcpu->settle()));
    return {};
}

// kernel-irqchip=split: a vCPU may leave guest code between the end of a level-triggered interrupt and the exit that
// tells of it. What no local APIC holds any more has ended.
void KernelControllers::end_unreported_interrupts() {
    for (std::uint64_t entry : board_->io_apic.state().redirection) {
        if (!(entry & entry_remote_irr)) continue;
        unsigned word = (entry & 0xff) / 32, bit = entry % 32;
        bool held = std::ranges::any_of(board_->apics, [&](dev::LocalApic const* apic) {
            return (apic->state().irr[word] | apic->state().isr[word]) >> bit & 1;
        });
        if (!held) board_->bus.broadcast_eoi(std::uint8_t(entry));
    }
}

Result<void> KernelControllers::push_apics() {
    left_out_.assign(vcpus_.size(), 0);
    for (std::size_t n = 0; n < vcpus_.size(); ++n) {
        kvm::KernelApic apic = TRY(vcpus_[n]->kernel_apic());
        left_out_[n] = to_kvm(*board_->apics[n], apic, {board_->tsc.tsc_now(), board_->tsc.tsc_hz()});
        TRY(vcpus_[n]->set_kernel_apic(apic));
    }
    return {};
}

Result<void> KernelControllers::pull_apics() {
    for (std::size_t n = 0; n < vcpus_.size(); ++n) {
        kvm::KernelApic apic = TRY(vcpus_[n]->kernel_apic());
        Nanoseconds now = board_->timers.now();
        dev::LocalApic::State state = from_kvm(apic, now, {board_->tsc.tsc_now(), board_->tsc.tsc_hz()});
        state.lint_level = board_->apics[n]->state().lint_level;
        if (!state.timer_initial && left_out_[n]) put_back(state, left_out_[n], now);
        // Ended, or began anew, since the kernel last put its interrupt where we see it.
        if (n < settled_.size() && timer_ended(apic, settled_[n])) state.timer_deadline = now;
        TRY(board_->apics[n]->adopt(state));
    }
    settled_.clear();
    return {};
}

Result<void> KernelControllers::push_chips() {
    for (unsigned n = 0; n < 2; ++n) {
        kvm_irqchip chip = chip_request(n == 0 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE);
        chip.chip.pic = to_kvm(board_->pic.state().chips[n], n, std::uint16_t(levels_));
        TRY(vm_call("KVM_SET_IRQCHIP", KVM_SET_IRQCHIP, &chip));
    }
    kvm_irqchip chip = chip_request(KVM_IRQCHIP_IOAPIC);
    chip.chip.ioapic = to_kvm(board_->io_apic.state(), board_->io_apic_base);
    TRY(vm_call("KVM_SET_IRQCHIP", KVM_SET_IRQCHIP, &chip));
    return {};
}

// The kernel's pins forget who drove them: level-triggered ones are driven again, for the others that would be an edge.
Result<void> KernelControllers::assert_levels() {
    kvm_irqchip chip = chip_request(KVM_IRQCHIP_IOAPIC),
                pics[2] = {chip_request(KVM_IRQCHIP_PIC_MASTER), chip_request(KVM_IRQCHIP_PIC_SLAVE)};
    TRY(vm_call("KVM_GET_IRQCHIP", KVM_GET_IRQCHIP, &chip));
    for (kvm_irqchip& pic : pics) TRY(vm_call("KVM_GET_IRQCHIP", KVM_GET_IRQCHIP, &pic));
    for (unsigned gsi = 0; gsi < dev::IoApic::pins; ++gsi) {
        bool level = chip.chip.ioapic.redirtbl[gsi].bits & entry_level;
        if (gsi < 16) level |= pics[gsi / 8].chip.pic.elcr >> (gsi & 7) & 1;
        if (level && (levels_ >> gsi & 1)) TRY(irqs_.set_line(gsi, true));
    }
    return {};
}

Result<void> KernelControllers::pull_chips() {
    dev::I8259Pair::State pics;
    for (unsigned n = 0; n < 2; ++n) {
        kvm_irqchip chip = chip_request(n == 0 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE);
        TRY(vm_call("KVM_GET_IRQCHIP", KVM_GET_IRQCHIP, &chip));
        pics.chips[n] = from_kvm(chip.chip.pic, n, std::uint16_t(levels_));
    }
    TRY(board_->pic.adopt(pics));
    kvm_irqchip chip = chip_request(KVM_IRQCHIP_IOAPIC);
    TRY(vm_call("KVM_GET_IRQCHIP", KVM_GET_IRQCHIP, &chip));
    // Pin 2 is the timer's, GSI 0.
    std::uint32_t lines = (levels_ & ~5u) | (levels_ & 1) << 2;
    return board_->io_apic.adopt(from_kvm(chip.chip.ioapic, lines));
}

bool KernelControllers::drive(unsigned gsi, bool level) {
    std::uint32_t bit = 1u << gsi;
    bool changed = bool(levels_ & bit) != level;
    levels_ = level ? levels_ | bit : levels_ & ~bit;
    if (!live_) return false;
    if (!changed) return true;
    if (auto done = irqs_.set_line(gsi, level); !done) log_.warn("{}", done.error().message());
    return true;
}

void KernelControllers::send(std::uint64_t address, std::uint32_t data) {
    if (auto done = irqs_.signal_msi({.address = address, .data = data}); !done)
        log_.warn("{}", done.error().message());
}

// kernel-irqchip=split: the kernel tells of the end of an interrupt whose vector a level-triggered route of GSIs 0 to
// 23 has (KVM API, KVM_CAP_SPLIT_IRQCHIP).
void KernelControllers::redirections_changed() {
    if (has_pins() || !live_) return;
    for (unsigned pin = 0; pin < dev::IoApic::pins; ++pin) {
        std::uint64_t entry = board_->io_apic.state().redirection[pin];
        kvm::MsiMessage message;
        message.address = dev::ApicBus::msi_base | (entry >> 56) << 12 | (entry & entry_logical ? 4 : 0);
        message.data = std::uint32_t(entry & 0x7ff) | (entry & entry_level ? 0xc000u : 0);
        irqs_.stage_msi(pin, message, entry & entry_masked);
    }
    if (auto done = irqs_.commit(); !done) log_.warn("{}", done.error().message());
}

} // namespace vmm
