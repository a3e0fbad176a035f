// KvmMachine: one KVM virtual machine: capabilities, memory slots that follow an address space, dirty pages, and the
// gate that keeps vCPUs out of guest code while slots change. Interrupt plumbing is kvm_irq.h.
#pragma once
#include "vmm/base/log.h"
#include "vmm/base/unique_fd.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/kvm/kvm_host.h"
#include "vmm/kvm/kvm_slots.h"

#include <linux/kvm.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vmm::kvm {

// -machine kernel-irqchip=. off: APICs and PICs are the board's devices. split: local APICs in the kernel. on: all of
// them in the kernel. The PIT is the board's in any case: KVM's does not tell where its counter 0 stands.
enum class KernelIrqchip : std::uint8_t { off, split, on };

struct KvmOptions {
    KernelIrqchip irqchip = KernelIrqchip::off;
    unsigned dirty_ring_entries = 0; // 0: dirty pages by bitmap; else a power of two
};

// What the host's KVM can do, of the things that are optional to us.
struct KvmCaps {
    unsigned max_slots = 32;
    unsigned max_vcpus = 4;
    unsigned coalesced_page = 0; // offset of the coalesced ring in pages of the vCPU mapping; 0: none
    bool coalesced_pio = false;
    bool user_msr = false;
    bool smm = false;
    bool tsc_control = false;
    bool tsc_rate = false; // a vCPU's rate can be asked for
    bool emulation_failure_bytes = false;
    bool triple_fault_event = false;
    bool notify_exit = false; // a guest that takes no events for long exits
    bool manual_dirty_protect = false;
    unsigned dirty_ring_bytes = 0; // largest dirty ring; 0: none
    bool irqfd_resample = false;
    bool tsc_deadline = false;
    bool tsc_offset = false; // a vCPU's TSC offset can be read and written
    bool debug_blocks_irqs = false;
    unsigned mce_banks = 0;
    unsigned nested_state_bytes = 0; // largest state of guests within the guest; 0: not told
};

// A vCPU as the gate sees it.
class GateUser {
public:
    virtual ~GateUser() = default;
    virtual bool in_guest() const = 0;
    // Makes it leave guest code soon. Any thread.
    virtual void kick() = 0;
    // Pages this vCPU dirtied (dirty ring), handed to `page`. The vCPU is out of guest code.
    virtual void harvest_dirty_ring(std::function<void(unsigned slot, std::uint64_t page)> const& page) = 0;
};

// Outlives its vCPUs. Made on any thread; the members say who may call them.
class KvmMachine {
public:
    // Errors: no usable /dev/kvm, a capability missing, a call refused.
    static Result<std::unique_ptr<KvmMachine>> create(KvmApi& api, Log& log, HostFacts const& host, KvmOptions options);
    ~KvmMachine();
    KvmMachine(KvmMachine const&) = delete;
    KvmMachine& operator=(KvmMachine const&) = delete;

    // Maps what `space` shows and follows its changes (on the thread that changes it, device lock held). Once, before a
    // vCPU runs; `space` outlives the machine or detach_memory is called first.
    Result<void> use_memory(AddressSpace& space);
    void detach_memory();

    // Fetches the pages guests wrote since the last call and notes them in their RamBlocks (RamBlock::written). Any
    // thread outside guest code.
    Result<void> sync_dirty_log();
    // Whether the machine cannot go on, and why: a slot change the kernel refused. Any thread.
    bool broken() const { return broken_.load(std::memory_order_acquire); }
    std::string broken_text() const;

    // --- for vCPUs ---
    KvmApi& api() const { return api_; }
    Log& log() const { return log_; }
    int vm_fd() const { return vm_.get(); }
    KvmCaps const& caps() const { return caps_; }
    KvmOptions const& options() const { return options_; }
    std::size_t run_size() const { return run_size_; }
    // CPUID as KVM supports it, and the MSRs it saves.
    std::span<kvm_cpuid_entry2 const> supported_cpuid() const { return supported_cpuid_; }
    bool saves_msr(std::uint32_t index) const;
    x86::FeatureSet features() const;
    // A write of an MSR the kernel refused; logged once for each index.
    void note_refused_msr(std::uint32_t index);

    void add_gate_user(GateUser& user);
    void remove_gate_user(GateUser& user);
    bool gate_closed() const { return gate_closed_.load(std::memory_order_seq_cst); }
    void wait_for_gate();
    // Runs `work` while no vCPU is in guest code. Any thread outside guest code.
    Result<void> outside_guest(std::function<Result<void>()> const& work);
    void dirty_ring_full();

    // kvmclock, in nanoseconds.
    Result<std::uint64_t> kvmclock() const;
    Result<void> set_kvmclock(std::uint64_t value);

    // Lets the kernel collect guest writes to this range; vCPUs hand them to the bus, in order, before anything else.
    // False: this host's KVM does not.
    Result<bool> add_coalesced_zone(GuestPhys address, std::uint32_t size, bool port);
    bool has_coalesced_zones() const { return coalesced_zones_.load(std::memory_order_acquire); }
    std::mutex& coalesced_mutex() { return coalesced_; } // taken before the device lock

    // kernel-irqchip=split: called on the vCPU's thread when a guest ends a level-triggered interrupt. Set before a
    // vCPU runs.
    void set_eoi_handler(std::function<void(std::uint8_t vector)> handler) { eoi_ = std::move(handler); }
    void end_of_interrupt(std::uint8_t vector) {
        if (eoi_) eoi_(vector);
    }

private:
    KvmMachine(KvmApi& api, Log& log, KvmOptions options) : api_(api), log_(log), options_(options) {}
    Result<void> probe();
    Result<void> set_up_vm();
    Result<void> read_cpuid();
    Result<void> read_msr_list();
    int check(unsigned long capability) {
        return api_.ioctl(vm_ ? vm_.get() : device_.get(), KVM_CHECK_EXTENSION, capability);
    }
    Result<void> enable(unsigned capability, std::uint64_t argument);
    Result<void> update_slots();
    Result<void> apply(SlotTable::Change const& change);
    Result<void> sync_bitmap(Slot const& slot);
    Result<void> sync_rings();
    // Runs `work` while no vCPU is in guest code; closer_ held.
    Result<void> with_gate_closed(std::function<Result<void>()> const& work);
    void mark_broken(std::string text);

    KvmApi& api_;
    Log& log_;
    KvmOptions options_;
    KvmCaps caps_;
    UniqueFd device_, vm_;
    std::size_t run_size_ = 0;
    std::vector<kvm_cpuid_entry2> supported_cpuid_;
    std::vector<std::uint32_t> msrs_; // sorted

    AddressSpace* space_ = nullptr;
    unsigned listener_ = 0;

    mutable std::mutex mutex_; // guards what follows; taken last
    std::condition_variable gate_opened_;
    std::vector<GateUser*> users_;
    std::vector<std::uint32_t> refused_msrs_;
    std::string broken_text_;
    std::atomic<bool> gate_closed_{false}, broken_{false}, coalesced_zones_{false};
    std::mutex coalesced_; // one drainer of the coalesced ring at a time
    std::function<void(std::uint8_t)> eoi_;
    std::mutex closer_; // one closer of the gate at a time, who may use slots_; taken before mutex_
    std::optional<SlotTable> slots_;
};

} // namespace vmm::kvm
