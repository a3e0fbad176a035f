// KernelPit: the interval timer that KVM runs in the host's kernel in place of the board's own, and how counts go from
// one to the other without a tick too many or too few.
#pragma once
#include "devices/timer/i8254.h"
#include "vmm/base/log.h"
#include "vmm/base/timer_queue.h"
#include "vmm/kvm/kvm_machine.h"

#include <linux/kvm.h>

#include <optional>

namespace vmm {

// Device lock held for every member but the constructor.
class KernelPit {
public:
    // `machine` outlives it and has kernel-irqchip=on.
    KernelPit(kvm::KvmMachine& machine, Log& log) : machine_(machine), log_(log) {}
    // Once; both outlive its use.
    void set_board(dev::I8254& pit, TimerQueue& timers);

    // The kernel's timer goes on from the board's; `replaced`: an HPET has its interrupt, so it gives none. Virtual
    // time runs. Errors: a call the kernel refuses.
    Result<void> push(bool replaced);
    // The board's goes on from the kernel's, which stops.
    Result<void> pull();
    // While the kernel has it.
    Result<void> set_replaced(bool on);
    void forget();

private:
    // What the kernel's counter 0 does that the board's would not: its counts can be begun anew, but not amid a period.
    enum class Stopgap : std::uint8_t {
        none,
        rest_of_period, // mode 4 with what is left of a period; then the period itself is loaded
        over,           // a one-shot count that is over; loaded again and again so that it never ends
    };
    Result<kvm_pit_state2> get() const;
    Result<void> set(kvm_pit_state2& pit);
    bool untouched(kvm_pit_channel_state const& channel) const;
    Result<void> load(kvm_pit_state2 pit);
    Result<void> end_stopgap();
    void refresh();

    kvm::KvmMachine& machine_;
    Log& log_;
    dev::I8254* pit_ = nullptr;
    TimerQueue* timers_ = nullptr;
    std::optional<Timer> timer_; // ends or renews the stopgap
    Stopgap stopgap_ = Stopgap::none;
    bool known_ = false;             // `board_` and `loaded_` describe the kernel's counter 0 until it is touched
    dev::I8254::State board_;        // as it was handed over
    kvm_pit_channel_state loaded_{}; // counter 0 as the kernel has it since
};

} // namespace vmm
