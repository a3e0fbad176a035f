#include "vmm/machine/pc/pc_cpu_bus.h"

namespace vmm {

namespace {
constexpr std::uint64_t second = 1'000'000'000;
__extension__ using Wide = unsigned __int128;
} // namespace

std::uint64_t PcTsc::ticks(Nanoseconds time) const {
    if (state_.hz == second) return std::uint64_t(time);
    return std::uint64_t(Wide(std::uint64_t(time)) * state_.hz / second);
}

Nanoseconds PcTsc::when(std::uint64_t tsc) const {
    std::uint64_t left = tsc - state_.lead;
    if (tsc < state_.lead && state_.lead - tsc <= INT64_MAX) left = 0;
    Wide at = (Wide(left) * second + state_.hz - 1) / state_.hz;
    return at > Wide(TimerQueue::never) ? TimerQueue::never : Nanoseconds(at);
}

void PcTsc::set_hz(std::uint64_t hz) {
    std::uint64_t now = tsc_now();
    state_.hz = hz;
    state_.lead = now - ticks(clock_.now());
}

void PcCpuBus::set_smm(bool active) { seen_ = active ? &needs_.smm_memory.space() : &needs_.memory; }

std::uint64_t PcCpuBus::mmio_read(GuestPhys a, unsigned size) {
    MutexLock lock(needs_.device_lock);
    if (own_apic(a)) return apic_->read(a & 0xfff, size);
    return seen_->read(a, size);
}

void PcCpuBus::mmio_write(GuestPhys a, unsigned size, std::uint64_t value) {
    MutexLock lock(needs_.device_lock);
    if (own_apic(a)) return apic_->write(a & 0xfff, size, value);
    seen_->write(a, size, value);
}

std::uint32_t PcCpuBus::port_read(std::uint16_t port, unsigned size) {
    MutexLock lock(needs_.device_lock);
    return std::uint32_t(needs_.io.read(port, size));
}

void PcCpuBus::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
    MutexLock lock(needs_.device_lock);
    needs_.io.write(port, size, value);
}

std::optional<std::uint8_t> PcCpuBus::acknowledge_interrupt() {
    MutexLock lock(needs_.device_lock);
    int vector = apic_->acknowledge();
    if (vector < 0) return std::nullopt;
    return std::uint8_t(vector);
}

std::uint8_t PcCpuBus::task_priority() {
    MutexLock lock(needs_.device_lock);
    return apic_->cr8();
}

void PcCpuBus::set_task_priority(std::uint8_t cr8) {
    MutexLock lock(needs_.device_lock);
    apic_->set_cr8(cr8);
}

std::optional<std::uint64_t> PcCpuBus::apic_msr_read(std::uint32_t index) {
    MutexLock lock(needs_.device_lock);
    return apic_->read_msr(index);
}

bool PcCpuBus::apic_msr_write(std::uint32_t index, std::uint64_t value) {
    MutexLock lock(needs_.device_lock);
    return apic_->write_msr(index, value);
}

void PcCpuBus::set_ferr(bool asserted) {
    MutexLock lock(needs_.device_lock);
    needs_.ferr.set(asserted);
}

void PcCpuBus::interrupt_changed() {
    if (!vcpu_) return;
    vcpu_->interrupt_changed();
    thread_->wake();
}

void PcCpuBus::send(CpuSignal what, std::uint8_t vector) {
    if (!vcpu_) return;
    vcpu_->signal(what, vector);
    thread_->wake();
}

} // namespace vmm
