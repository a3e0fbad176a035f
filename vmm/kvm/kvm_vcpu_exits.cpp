// What a guest leaves KVM_RUN for.
#include "vmm/kvm/kvm_vcpu.h"

#include <cstring>

namespace vmm::kvm {

namespace {

// Splits an access into powers of two; calls take(offset, size) for each.
template <class Take> void by_powers_of_two(unsigned length, Take take) {
    for (unsigned at = 0; at < length;) {
        unsigned size = 8;
        while (size > length - at) size /= 2;
        take(at, size);
        at += size;
    }
}

} // namespace

std::optional<ExitReason> KvmVcpu::handle_exit() {
    switch (run_->exit_reason) {
    case KVM_EXIT_IO: return handle_port(), std::nullopt;
    case KVM_EXIT_MMIO: return handle_mmio(), std::nullopt;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_NMI:
    case KVM_EXIT_SET_TPR: return std::nullopt;
    case KVM_EXIT_HLT: activity_ = x86::Activity::halted; return std::nullopt;
    case KVM_EXIT_SHUTDOWN: activity_ = x86::Activity::shutdown; return ExitReason::shutdown;
    case KVM_EXIT_SYSTEM_EVENT: return ExitReason::shutdown;
    case KVM_EXIT_X86_RDMSR: return handle_msr_read(), std::nullopt;
    case KVM_EXIT_X86_WRMSR: return handle_msr_write(), std::nullopt;
    case KVM_EXIT_DIRTY_RING_FULL: return machine_.dirty_ring_full(), std::nullopt;
    case KVM_EXIT_IOAPIC_EOI: machine_.end_of_interrupt(run_->eoi.vector); return std::nullopt;
    case KVM_EXIT_DEBUG: debug_exit_ = run_->debug.arch; return ExitReason::debug;
    case KVM_EXIT_NOTIFY:
        if (run_->notify.flags & KVM_NOTIFY_CONTEXT_INVALID)
            return fail_with_registers("the guest kept the CPU from taking any event, and its state is lost");
        machine_.log().guest_error("the guest keeps the CPU from taking events");
        return std::nullopt;
    case KVM_EXIT_INTERNAL_ERROR: return fail_with_registers(internal_error_what());
    case KVM_EXIT_FAIL_ENTRY:
        return fail_with_registers(fmt::format(
            "KVM could not enter the guest: hardware entry failure reason {:#x} on host CPU {} (a guest state "
            "this processor does not accept)",
            std::uint64_t(run_->fail_entry.hardware_entry_failure_reason), std::uint32_t(run_->fail_entry.cpu)));
    default:
        return fail_with_registers(
            fmt::format("KVM exited for reason {}, which is not handled", std::uint32_t(run_->exit_reason)));
    }
}

void KvmVcpu::handle_port() {
    needs_completion_ = true;
    auto const& io = run_->io;
    std::uint8_t* data = reinterpret_cast<std::uint8_t*>(run_) + io.data_offset;
    unsigned size = io.size;
    std::uint16_t port = io.port;
    for (std::uint32_t n = io.count; n; --n, data += size) {
        std::uint32_t value = 0;
        if (io.direction == KVM_EXIT_IO_OUT) {
            std::memcpy(&value, data, size);
            bus_.port_write(port, size, value);
        } else {
            value = bus_.port_read(port, size);
            std::memcpy(data, &value, size);
        }
    }
}

void KvmVcpu::handle_mmio() {
    needs_completion_ = true;
    auto& mmio = run_->mmio;
    GuestPhys address = mmio.phys_addr;
    bool write = mmio.is_write;
    by_powers_of_two(mmio.len > 8 ? 8 : mmio.len, [&](unsigned at, unsigned size) {
        std::uint64_t value = 0;
        if (write) {
            std::memcpy(&value, mmio.data + at, size);
            bus_.mmio_write(address + at, size, value);
        } else {
            value = bus_.mmio_read(address + at, size);
            std::memcpy(mmio.data + at, &value, size);
        }
    });
    if (write && !kernel_apic_) sync_tpr_from_bus(); // it may have been the APIC's TPR
}

void KvmVcpu::handle_msr_read() {
    needs_completion_ = true;
    auto value = bus_.apic_msr_read(run_->msr.index);
    if (!value) machine_.log().guest_error("RDMSR {:#x}: unknown", std::uint32_t(run_->msr.index));
    run_->msr.error = !value;
    if (value) run_->msr.data = *value;
}

void KvmVcpu::handle_msr_write() {
    needs_completion_ = true;
    bool done = bus_.apic_msr_write(run_->msr.index, run_->msr.data);
    if (!done)
        machine_.log().guest_error("WRMSR {:#x} = {:#x}: refused", std::uint32_t(run_->msr.index),
                                   std::uint64_t(run_->msr.data));
    run_->msr.error = !done;
    sync_tpr_from_bus();
}

// Writes the kernel collected (KVM API, KVM_REGISTER_COALESCED_MMIO): one ring for the machine, seen through every
// vCPU.
void KvmVcpu::drain_coalesced() {
    if (!machine_.has_coalesced_zones()) return;
    std::lock_guard lock(machine_.coalesced_mutex());
    auto* ring = reinterpret_cast<abi::CoalescedRing*>(reinterpret_cast<std::uint8_t*>(run_) +
                                                       machine_.caps().coalesced_page * page_size);
    auto* writes = reinterpret_cast<kvm_coalesced_mmio const*>(ring + 1);
    constexpr std::uint32_t entries = (page_size - sizeof(abi::CoalescedRing)) / sizeof(kvm_coalesced_mmio);
    while (ring->first % entries != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE) % entries) {
        kvm_coalesced_mmio const& entry = writes[ring->first % entries];
        by_powers_of_two(entry.len > 8 ? 8 : entry.len, [&](unsigned at, unsigned size) {
            std::uint64_t value = 0;
            std::memcpy(&value, entry.data + at, size);
            if (entry.pio)
                bus_.port_write(std::uint16_t(entry.phys_addr), size, std::uint32_t(value));
            else
                bus_.mmio_write(entry.phys_addr + at, size, value);
        });
        __atomic_store_n(&ring->first, (ring->first + 1) % entries, __ATOMIC_RELEASE);
    }
}

std::string KvmVcpu::internal_error_what() const {
    auto const& e = run_->internal;
    switch (e.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
        return "KVM cannot emulate this instruction (the host kernel emulates what the CPU cannot run by itself)";
    case KVM_INTERNAL_ERROR_SIMUL_EX: return "KVM internal error: simultaneous exceptions";
    case KVM_INTERNAL_ERROR_DELIVERY_EV: return "KVM internal error: an exit during delivery of an event";
    default: {
        std::string text = fmt::format("KVM internal error, suberror {}", std::uint32_t(e.suberror));
        for (std::uint32_t i = 0; i < e.ndata && i < 16; ++i)
            text += fmt::format("{}{:#x}", i ? " " : ": ", std::uint64_t(e.data[i]));
        return text;
    }
    }
}

std::string KvmVcpu::instruction_bytes() const {
    std::string text;
    auto const& failure = run_->emulation_failure;
    if (run_->exit_reason == KVM_EXIT_INTERNAL_ERROR && failure.suberror == KVM_INTERNAL_ERROR_EMULATION &&
        failure.ndata >= 3 && (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
        for (unsigned i = 0; i < failure.insn_size && i < sizeof failure.insn_bytes; ++i)
            text += fmt::format(" {:02x}", failure.insn_bytes[i]);
        if (!text.empty()) return text;
    }
    x86::State s = state();
    std::uint64_t linear = s.code64() ? s.rip : std::uint32_t(s.seg[x86::cs].base + s.rip);
    for (unsigned i = 0; i < 15; ++i) {
        auto physical = const_cast<KvmVcpu*>(this)->translate(linear + i);
        std::uint8_t byte;
        if (!physical || !bus_.memory().ram_pointer(*physical, 1, false)) break;
        byte = *bus_.memory().ram_pointer(*physical, 1, false);
        text += fmt::format(" {:02x}", byte);
    }
    return text.empty() ? " (not readable)" : text;
}

ExitReason KvmVcpu::fail_with_registers(std::string what) {
    std::string code = instruction_bytes();
    x86::State s = state();
    return fail(fmt::format("{}\nCPU {} at {:04x}:{:016x}, code:{}\n{}", what, config_.cpuid.apic_id,
                            s.seg[x86::cs].selector, s.rip, code, x86::describe(s)));
}

} // namespace vmm::kvm
