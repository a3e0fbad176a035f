// KvmVcpu: a virtual CPU run by KVM. kvm_vcpu.cpp has the run loop, events and state; kvm_vcpu_exits.cpp what the guest
// leaves KVM_RUN for.
#pragma once
#include "vmm/cpu/cpu_bus.h"
#include "vmm/cpu/vcpu.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/kvm/kvm_machine.h"
#include "vmm/kvm/kvm_state.h"

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace vmm::kvm {

// What a debugger asks of the CPU (KVM_SET_GUEST_DEBUG).
struct GuestDebug {
    bool single_step = false;          // without interrupts, where the host's KVM can hold them back
    bool software_breakpoints = false; // INT3 comes out as ExitReason::debug
    struct Hardware {
        std::uint64_t address = 0;
        unsigned type = 0; // DR7 R/W: 0 execute, 1 write, 3 read or write
        unsigned size = 1; // 1, 2, 4, 8
    };
    std::vector<Hardware> hardware{}; // at most 4
};

// A local APIC in the kernel.
struct KernelApic {
    std::uint64_t apic_base = 0;
    std::uint64_t tsc_deadline = 0;    // in ticks of `tsc`
    std::uint64_t tsc = 0, tsc_hz = 0; // the guest's counter at the moment of the look; ignored when set
    kvm_lapic_state page{};
    std::uint32_t word(unsigned at) const;
};

class KvmVcpu final : public Vcpu, private GateUser {
public:
    struct Config {
        KvmMachine& machine;
        CpuBus& bus;
        x86::CpuModel model;
        x86::CpuidContext cpuid; // topology and APIC ID
        bool bsp = true;
    };
    // Starts in the reset state. `machine` has its memory and outlives the vCPU.
    static Result<std::unique_ptr<KvmVcpu>> create(Config config);
    ~KvmVcpu() override;

    ExitReason run(std::uint64_t budget) override;
    void request_exit() override;
    void interrupt_changed() override { kick(); }
    void signal(CpuSignal what, std::uint8_t vector) override;
    bool has_work() const override;
    x86::State state() const override;
    void set_state(x86::State const& state) override;
    // KVM_GET_NESTED_STATE, while a guest of the guest exists or VMX or SVM is on.
    Result<std::vector<std::uint8_t>> own_state() const override;
    Result<void> set_own_state(std::vector<std::uint8_t> const& bytes) override;
    void reset(bool bsp) override;
    std::optional<std::uint64_t> translate(std::uint64_t linear) override;
    std::string error_text() const override { return error_; }
    char const* engine_name() const override { return "kvm"; }

    // While out of run(). A state set later does not end it.
    Result<void> set_guest_debug(GuestDebug const& request);
    // Where and why the last ExitReason::debug came.
    kvm_debug_exit_arch const& debug_exit() const { return debug_exit_; }
    // kernel-irqchip=on|split, while out of run().
    Result<KernelApic> kernel_apic() const;
    Result<void> set_kernel_apic(KernelApic const& apic);
    // kernel-irqchip=on|split, before kernel_apic() and state(), on a thread without the device lock: the kernel takes
    // what has come for this CPU but waits for an entry, INIT and SIPI and the APIC timer's interrupt. The timer's
    // count after that: one that is over later, without an entry, has not interrupted yet.
    Result<std::uint32_t> settle();
    // The time stamp counter as the guest reads it, its IA32_TSC_ADJUST, and the offset KVM makes it with, where the
    // host's KVM tells.
    struct TimeStamp {
        std::uint64_t counter = 0, adjust = 0;
        std::optional<std::uint64_t> offset;
    };
    Result<TimeStamp> time_stamp() const;
    Result<void> set_time_stamp(std::uint64_t counter);
    Result<void> set_time_stamp_offset(std::uint64_t offset);
    // Its rate.
    std::uint64_t tsc_hz() const { return tsc_hz_; }
    // Times the guest came out to userspace.
    std::uint64_t exits() const { return exits_; }
    int fd() const { return vcpu_.get(); }

private:
    explicit KvmVcpu(Config config) : config_(std::move(config)), machine_(config_.machine), bus_(config_.bus) {}
    Result<void> open();
    Result<void> set_up_cpuid();
    Result<void> set_up_tsc();
    Result<void> set_up_machine_check();
    Result<void> find_msrs();

    bool in_guest() const override { return in_guest_.load(std::memory_order_seq_cst); }
    void kick() override;
    void harvest_dirty_ring(std::function<void(unsigned slot, std::uint64_t page)> const& page) override;

    // --- run loop ---
    std::optional<ExitReason> before_entry();
    std::optional<ExitReason> take_signals();
    void apply_init_signal();
    void apply_sipi(std::uint8_t vector);
    bool wakes_from_halt() const;
    bool inject();
    bool queue_interrupt(std::uint8_t vector);
    int enter();
    std::optional<ExitReason> after_exit(int result);
    ExitReason leave(ExitReason reason);
    void sync_tpr_to_bus();
    void sync_tpr_from_bus();
    bool take_apic_from_bus();
    ExitReason fail(std::string text);
    bool check(char const* call, int result) const;
    template <class T> int call(unsigned long request, T* argument) const {
        return machine_.api().ioctl(vcpu_.get(), request, argument);
    }

    // --- exits (kvm_vcpu_exits.cpp) ---
    std::optional<ExitReason> handle_exit();
    void handle_port();
    void handle_mmio();
    void handle_msr_read();
    void handle_msr_write();
    void drain_coalesced();
    ExitReason fail_with_registers(std::string what);
    std::string internal_error_what() const;
    std::string instruction_bytes() const;

    // --- state ---
    // What is left of the kernel's APIC timer; `counts`: whether it is one that counts down to an interrupt.
    Result<std::uint32_t> timer_count(bool& counts) const;
    x86::Activity kernel_activity() const;
    bool set_kernel_activity(x86::Activity activity);
    Result<void> leave_nested();
    void get_msrs(x86::State& s) const;
    void set_msrs(x86::State const& s);
    // state() and set_state() without the signals that wait here.
    x86::State kernel_state() const;
    void set_kernel_state(x86::State const& s);

    Config config_;
    KvmMachine& machine_;
    CpuBus& bus_;
    UniqueFd vcpu_;
    kvm_run* run_ = nullptr; // shared with the kernel
    kvm_dirty_gfn* dirty_ring_ = nullptr;
    std::uint32_t dirty_next_ = 0;
    XsaveLayout xsave_layout_;
    mutable std::vector<std::uint32_t> msrs_; // those of the state the host takes

    bool kernel_apic_ = false;      // KVM has the local APIC, and with it HLT, INIT and SIPI
    bool injects_ = true;           // external interrupts come from the bus: all of them, or the PIC's (split)
    bool needs_completion_ = false; // an I/O exit whose instruction KVM finishes at the next entry
    bool complete_only_ = false;    // that entry must not run the guest
    x86::Activity activity_ = x86::Activity::running;
    bool if_flag_ = false;    // RFLAGS.IF at the last exit
    bool holds_irqs_ = false; // single steps come without interrupts
    std::uint8_t cr8_ = 0;
    std::uint64_t tsc_hz_ = 0;    // as the guest sees it
    std::uint64_t apic_base_ = 0; // as KVM has it; 0: not known yet
    std::uint64_t exits_ = 0;
    kvm_debug_exit_arch debug_exit_{};
    mutable std::string error_;

    std::atomic<bool> in_guest_{false}, exit_asked_{false};
    std::atomic<int> thread_id_{0};
    std::atomic<std::uint32_t> signals_{0}; // a bit for each CpuSignal
    std::atomic<std::uint8_t> sipi_vector_{0};
};

} // namespace vmm::kvm
