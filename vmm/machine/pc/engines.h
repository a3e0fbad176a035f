// Making vCPUs of the engine the user chose.
#pragma once
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/cpu/cpu_bus.h"
#include "vmm/cpu/vcpu.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/kvm/kvm_machine.h"
#include "vmm/machine/write_shortcuts.h"

#include <memory>
#include <string>
#include <vector>

namespace vmm {

class KernelControllers;

// Where a vCPU stands in the machine.
struct CpuPlace {
    unsigned index = 0;
    std::uint32_t apic_id = 0;
    unsigned cores = 1, threads = 1; // per socket, per core
    bool bsp = false;
};

class PcTsc;

// What a guest's clocks have shown, from one engine to the next.
struct GuestTime {
    PcTsc& tsc;
    Clock const& clock;               // virtual time
    Nanoseconds paravirtual_lead = 0; // what kvmclock is ahead of virtual time
};

// One engine for all vCPUs of a machine; outlives them.
class Engine {
public:
    virtual ~Engine() = default;
    // Errors: the host refuses.
    virtual Result<std::unique_ptr<Vcpu>> make_vcpu(CpuBus& bus, x86::CpuModel const& model, CpuPlace place) = 0;
    // The machine's memory is about to end. The vCPUs are gone.
    virtual void release_memory() {}
    // Virtual time starts or has stopped, the vCPUs out of guest code: an engine whose guest sees clocks that are not
    // ours sets them by ours, or ours by them, so that the guest sees none go back.
    virtual Result<void> start_time(GuestTime&) { return {}; }
    virtual Result<void> stop_time(GuestTime&) { return {}; }
    // Interrupt controllers that come with the engine; null: the board's are all there are.
    virtual KernelControllers* controllers() { return nullptr; }
    // The rate of a guest's TSC, where this engine cannot follow the board's; 0: it can. Known once there is a vCPU.
    virtual std::uint64_t tsc_hz() const { return 0; }
    // Takes guest writes off the CPU; null: all of them come by the bus.
    virtual WriteShortcutEngine* write_shortcuts() { return nullptr; }
    // What CPU models are cut down to.
    virtual x86::FeatureSet features() const = 0;
    // Whose processor a guest had better take its own for.
    virtual x86::CpuIdentity identity() const { return x86::CpuIdentity::model; }
};

enum class TcgBackend : std::uint8_t { interp, jit };
struct TcgOptions {
    TcgBackend backend = TcgBackend::interp;
    std::uint64_t code_cache_bytes = 64 << 20; // tb-size
    std::vector<AddressRange> trace_ranges{};  // -dfilter
    bool perf_map = false;                     // -perfmap
    bool profile = false;                      // count executions of each block
    // Tiny code cache and TLB, links forgotten at random, by this seed; 0: no.
    std::uint64_t torture_seed = 0;
    bool one_cpu = false;  // the machine has no other: LOCK has nobody to keep out
    bool lockstep = false; // the JIT checked against the interpreter, block by block
};
std::unique_ptr<Engine> make_tcg_engine(TcgOptions options, Log& log);

// KVM: one virtual machine, made at once; its memory is that of the first vCPU's bus, and ends after the engine or with
// release_memory(). `api` outlives it. `lockstep`: checked against the interpreter, instruction by instruction, which
// wants kernel-irqchip=off. Errors say why KVM cannot be used and what to do.
Result<std::unique_ptr<Engine>> make_kvm_engine(kvm::KvmApi& api, kvm::HostFacts const& host, kvm::KvmOptions options,
                                                Log& log, bool lockstep = false);

} // namespace vmm
