#include "vmm/machine/pc/pc_cpu_bus.h"

#include <fmt/format.h>

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

// With `-d guest_errors`: an access that nobody answers, or the one who does not in this size. `value`: what is
// written.
void PcCpuBus::note(AddressSpace const& space, GuestPhys a, unsigned size, std::optional<std::uint64_t> value) {
    if (!needs_.log.enabled(Trace::guest_errors)) return;
    FlatRange const* piece = value ? space.view().find_write(a) : space.view().find_read(a);
    AccessRules const rules = piece ? piece->backing.rules : AccessRules{};
    if (piece && (piece->backing.ram || (size >= rules.min_guest && size <= rules.max_guest))) return;
    std::string what = value ? fmt::format("write of {:#x}", *value) : "read";
    std::string why =
        piece ? fmt::format("the device takes {} to {} bytes", rules.min_guest, rules.max_guest) : "there is no device";
    needs_.log.guest_error("{} {:#x}: {}-byte {}: {}", &space == &needs_.io ? "port" : "memory", a, size, what, why);
}

std::uint64_t PcCpuBus::mmio_read(GuestPhys a, unsigned size) {
    MutexLock lock(needs_.device_lock);
    if (own_apic(a)) return apic_->read(a & 0xfff, size);
    note(*seen_, a, size, {});
    return seen_->read(a, size);
}

void PcCpuBus::mmio_write(GuestPhys a, unsigned size, std::uint64_t value) {
    MutexLock lock(needs_.device_lock);
    if (own_apic(a)) return apic_->write(a & 0xfff, size, value);
    note(*seen_, a, size, value);
    seen_->write(a, size, value);
}

std::uint32_t PcCpuBus::port_read(std::uint16_t port, unsigned size) {
    MutexLock lock(needs_.device_lock);
    note(needs_.io, port, size, {});
    return std::uint32_t(needs_.io.read(port, size));
}

void PcCpuBus::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
    MutexLock lock(needs_.device_lock);
    note(needs_.io, port, size, value);
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
