// LockstepVcpu: two translating vCPUs as one. The first drives the machine; the second repeats each block from the same
// inputs on its own copy of RAM; the first difference ends the run (-accel tcg,lockstep=on).
#pragma once
#include "vmm/tcg/engine/lockstep_bus.h"
#include "vmm/tcg/engine/lockstep_memory.h"
#include "vmm/tcg/engine/x86_vcpu.h"

#include <atomic>
#include <memory>
#include <string>

namespace vmm::tcg {

// One CPU only: another one's writes to RAM would reach one engine and not the other. Blocks are not linked, so that
// each one's outcome is seen. Between two looks at a device a REP instruction is one step: it delays stop requests.
class LockstepVcpu final : public Vcpu {
public:
    struct Config {
        CpuBus& bus;
        Log& log;
        vmm::x86::CpuModel model;
        BackendFactory first, second;
        bool bsp = true;
        vmm::x86::CpuidContext cpuid{};
        std::vector<AddressRange> trace_ranges{};
        // All of RAM is compared after this many blocks: finds stray writes of the first engine alone.
        std::uint64_t whole_memory_every = 1 << 20;
    };
    // Errors: no memory for the copy of RAM.
    static Result<std::unique_ptr<LockstepVcpu>> create(Config config);

    // A difference ends with internal_error; error_text() is the report.
    ExitReason run(std::uint64_t budget) override;
    void request_exit() override { exit_asked_.store(true, std::memory_order_release); }
    void interrupt_changed() override {} // looked at before each block
    void signal(CpuSignal what, std::uint8_t vector) override;
    bool has_work() const override;
    vmm::x86::State state() const override { return first_.state(); }
    void set_state(vmm::x86::State const& state) override;
    void reset(bool bsp) override;
    std::optional<std::uint64_t> translate(std::uint64_t linear) override { return first_.translate(linear); }
    std::string error_text() const override { return report_; }
    char const* engine_name() const override { return "lockstep"; }

    // Blocks compared so far.
    std::uint64_t blocks() const { return blocks_; }

private:
    LockstepVcpu(Config config, std::unique_ptr<ShadowMemory> memory);
    X86Vcpu::Config part(CpuBus& bus, Shared& shared, Log& log, BackendFactory backend) const;
    void pass_signals();
    std::string difference(std::optional<ExitReason> first, std::optional<ExitReason> second);
    void note_before();
    bool same_flags();
    // Calls visit(instruction, linear address) for each instruction of the last block, as far as it can be decoded.
    template <class F> void for_each_instruction(F visit);
    std::string report(std::string const& what);

    Config config_;
    Log quiet_{"lockstep"}; // the second engine says nothing
    Shared first_shared_, second_shared_;
    std::unique_ptr<ShadowMemory> memory_;
    RecordingBus recorder_;
    ReplayBus replay_;
    X86Vcpu first_, second_;
    std::vector<x86::WrittenBytes> writes_; // the second engine's, in the block
    vmm::x86::State before_;                // before the block: as far as `info registers` shows it
    std::uint64_t instructions_before_ = 0, blocks_ = 0;
    bool memory_stale_ = true; // RAM was written by others
    std::string report_;

    std::atomic<bool> exit_asked_{false};
    std::atomic<std::uint32_t> signals_{0}; // bit per CpuSignal
    std::atomic<std::uint8_t> sipi_vector_{0};
};

} // namespace vmm::tcg
