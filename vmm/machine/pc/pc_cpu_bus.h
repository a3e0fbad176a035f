// PcCpuBus: how one vCPU of a PC reaches memory, devices and its local APIC.
#pragma once
#include "devices/irq/local_apic.h"
#include "vmm/base/thread_annotations.h"
#include "vmm/cpu/cpu_bus.h"
#include "vmm/cpu/vcpu.h"
#include "vmm/machine/pc/smm_memory.h"
#include "vmm/machine/vcpu_thread.h"

namespace vmm {

// The guest's time stamp counter: one tick a nanosecond of virtual time, so that no conversion is inexact, unless an
// engine has a rate of its own. An engine with a counter of its own may leave it ahead of virtual time.
class PcTsc final : public dev::TscSource {
public:
    struct State {
        std::uint64_t hz = 1'000'000'000;
        std::uint64_t lead = 0; // ticks ahead of virtual time, modulo 2^64
    };
    explicit PcTsc(Clock const& clock) : clock_(clock) {}
    std::uint64_t tsc_now() const override { return ticks(clock_.now()) + state_.lead; }
    std::uint64_t tsc_hz() const override { return state_.hz; }
    Nanoseconds when(std::uint64_t tsc) const override;
    // Every vCPU out of guest code, for both.
    void advance(std::uint64_t by) { state_.lead += by; }
    // Another rate from now on; the counter goes on from where it is.
    void set_hz(std::uint64_t hz);
    State const& state() const { return state_; }

private:
    std::uint64_t ticks(Nanoseconds time) const;
    Clock const& clock_;
    State state_;
};
template <class V> void fields(V& v, PcTsc::State& s) {
    v.field("hz", s.hz);
    v.field("lead", s.lead);
}

// Signals from the local APIC go to the vCPU and wake its thread (device lock held); the rest is CpuBus on the vCPU's
// thread, taking the device lock.
class PcCpuBus final : public CpuBus, public dev::CpuSignals {
public:
    struct Needs {
        Mutex& device_lock;
        AddressSpace& memory;
        SmmMemory& smm_memory;
        AddressSpace& io;
        PcTsc const& tsc;
        dev::IrqLine& ferr; // IRQ 13
        Log& log;
    };
    explicit PcCpuBus(Needs needs) : needs_(needs), seen_(&needs.memory) {}
    // Both before the vCPU runs.
    void connect(dev::LocalApic& apic) { apic_ = &apic; }
    void connect(Vcpu& vcpu, VcpuThread& thread) { vcpu_ = &vcpu, thread_ = &thread; }

    AddressSpace& memory() override { return *seen_; }
    void set_smm(bool active) override;
    std::uint64_t mmio_read(GuestPhys a, unsigned size) override;
    void mmio_write(GuestPhys a, unsigned size, std::uint64_t value) override;
    std::uint32_t port_read(std::uint16_t port, unsigned size) override;
    void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;
    bool interrupt_pending() const override { return apic_->interrupt_pending(); }
    std::optional<std::uint8_t> acknowledge_interrupt() override;
    std::uint8_t task_priority() override;
    void set_task_priority(std::uint8_t cr8) override;
    std::optional<std::uint64_t> apic_msr_read(std::uint32_t index) override;
    bool apic_msr_write(std::uint32_t index, std::uint64_t value) override;
    std::uint64_t tsc() override { return needs_.tsc.tsc_now(); }
    std::uint64_t tsc_hz() const override { return needs_.tsc.tsc_hz(); }
    void set_ferr(bool asserted) override;

    void interrupt_changed() override;
    void nmi() override { send(CpuSignal::nmi, 0); }
    void smi() override { send(CpuSignal::smi, 0); }
    void init() override { send(CpuSignal::init, 0); }
    void sipi(std::uint8_t vector) override { send(CpuSignal::sipi, vector); }

private:
    void send(CpuSignal what, std::uint8_t vector);
    void note(AddressSpace const& space, GuestPhys a, unsigned size, std::optional<std::uint64_t> value);
    bool own_apic(GuestPhys a) const {
        return apic_->mmio_enabled() && (a & ~std::uint64_t(0xfff)) == apic_->mmio_base();
    }

    Needs needs_;
    AddressSpace* seen_; // memory outside of SMM, or in it
    dev::LocalApic* apic_ = nullptr;
    Vcpu* vcpu_ = nullptr;
    VcpuThread* thread_ = nullptr;
};

} // namespace vmm
