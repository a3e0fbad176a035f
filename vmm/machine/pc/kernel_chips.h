// The states of KVM's interrupt controllers to and from those of our devices, which are the one format they
// are saved in. Pure conversions; KernelControllers makes the calls.
#pragma once
#include "devices/irq/i8259.h"
#include "devices/irq/io_apic.h"
#include "devices/irq/local_apic.h"
#include "vmm/kvm/kvm_vcpu.h"

#include <linux/kvm.h>

#include <array>
#include <cstdint>

namespace vmm {

// What devices drive the pins with belongs to the devices: `lines` has a bit for each ISA input.
kvm_pic_state to_kvm(dev::I8259Pair::Chip const& chip, unsigned index, std::uint16_t lines);
dev::I8259Pair::Chip from_kvm(kvm_pic_state const& chip, unsigned index, std::uint16_t lines);

kvm_ioapic_state to_kvm(dev::IoApic::State const& state, std::uint64_t base);
dev::IoApic::State from_kvm(kvm_ioapic_state const& state, std::uint32_t lines);

// A time stamp counter and its rate.
struct TscReading {
    std::uint64_t ticks = 0, hz = 1'000'000'000;
};

// `now`: virtual time, at which our APIC timers stand; `tsc`: our time stamp counter then. `k.page` keeps what is the
// kernel's own (the version); `k.tsc` and `k.tsc_hz` are the kernel's counter at that moment. The kernel would let a
// one-shot timer that has gone off do so again: the count such a timer began with is left out, which is what the result
// tells (else 0).
std::uint32_t to_kvm(dev::LocalApic const& apic, kvm::KernelApic& k, TscReading tsc);
dev::LocalApic::State from_kvm(kvm::KernelApic const& k, Nanoseconds now, TscReading tsc);
// The same for the count that was left out: the timer is over.
void put_back(dev::LocalApic::State& state, std::uint32_t timer_initial, Nanoseconds now);
// Whether a timer that had `count` left at a former look has gone off since.
bool timer_ended(kvm::KernelApic const& k, std::uint32_t count);

} // namespace vmm
