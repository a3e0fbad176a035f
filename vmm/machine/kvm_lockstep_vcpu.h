// KvmLockstepVcpu: KVM, stepped instruction by instruction, and the interpreter as one CPU (-accel kvm,lockstep=on).
// KVM drives the machine; the interpreter repeats each instruction from the same inputs on its own copy of RAM; the
// first difference ends the run.
#pragma once
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/tcg/engine/lockstep_bus.h"
#include "vmm/tcg/engine/lockstep_memory.h"
#include "vmm/tcg/engine/x86_vcpu.h"

#include <atomic>
#include <map>
#include <memory>
#include <string>

namespace vmm {

// One CPU, and no interrupt controller in the kernel: what the kernel does by itself the interpreter cannot repeat.
class KvmLockstepVcpu final : public Vcpu {
public:
    struct Config {
        kvm::KvmMachine& machine; // has its memory; kernel-irqchip=off
        CpuBus& bus;
        Log& log;
        x86::CpuModel model;
        x86::CpuidContext cpuid{};
        bool bsp = true;
    };
    // Errors: the host refuses; its KVM cannot hold interrupts back while it steps; no memory for the copy of RAM.
    static Result<std::unique_ptr<KvmLockstepVcpu>> create(Config config);
    // Says how much was compared, and of which instructions the outcome is the host's own affair.
    ~KvmLockstepVcpu() override;

    // A difference ends with internal_error; error_text() is the report.
    ExitReason run(std::uint64_t budget) override;
    void request_exit() override { exit_asked_.store(true, std::memory_order_release); }
    void interrupt_changed() override {} // looked at before each instruction
    void signal(CpuSignal what, std::uint8_t vector) override;
    bool has_work() const override;
    x86::State state() const override;
    void set_state(x86::State const& state) override;
    void reset(bool bsp) override;
    std::optional<std::uint64_t> translate(std::uint64_t linear) override { return kvm_->translate(linear); }
    std::string error_text() const override { return report_; }
    char const* engine_name() const override { return "kvm lockstep"; }

    kvm::KvmVcpu& kvm() { return *kvm_; }
    std::uint64_t compared() const { return compared_; }
    std::map<std::string, std::uint64_t> const& skipped() const { return skipped_; }

private:
    struct Instruction;
    KvmLockstepVcpu(Config config, std::unique_ptr<tcg::ShadowMemory> memory);
    Result<void> load(x86::State const& state);
    void copy_all();
    bool take_event();
    bool take(std::uint8_t vector);
    bool place(x86::State const& s);
    std::optional<ExitReason> step();
    ExitReason step_kvm(Instruction const& instruction);
    ExitReason finish_repeats(ExitReason reason, x86::State& after);
    void follow(x86::State const& after);
    Instruction decode(x86::State const& at);
    std::optional<std::uint64_t> catch_up(Instruction first, x86::State const& after);
    void clear_pushed_trap_flags();
    std::string difference(std::uint64_t undefined_flags, x86::State const& after);
    std::string report(Instruction const& instruction, std::string const& what, x86::State const& after);

    Config config_;
    Log quiet_{"lockstep"}; // the interpreter says nothing
    tcg::Shared shared_;
    std::unique_ptr<tcg::ShadowMemory> memory_;
    tcg::RecordingBus recorder_;
    tcg::ReplayBus replay_;
    std::unique_ptr<kvm::KvmVcpu> kvm_;
    tcg::X86Vcpu interp_;
    std::vector<tcg::x86::WrittenBytes> writes_; // the interpreter's, in the step
    x86::State state_;                           // of KVM, between instructions
    std::uint64_t compared_ = 0;
    std::map<std::string, std::uint64_t> skipped_; // by mnemonic
    bool stale_ = true;                            // RAM was written by others
    bool nmi_waits_ = false;                       // the engines get it when it is delivered
    std::string report_;

    std::atomic<bool> exit_asked_{false};
    std::atomic<std::uint32_t> signals_{0};
};

} // namespace vmm
