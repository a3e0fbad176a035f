#include "vmm/machine/pc/engines.h"

#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/machine/kvm_lockstep_vcpu.h"
#include "vmm/machine/pc/kernel_controllers.h"
#include "vmm/machine/pc/pc_cpu_bus.h"
#include "vmm/tcg/engine/lockstep_vcpu.h"
#include "vmm/tcg/engine/x86_vcpu.h"
#include "vmm/tcg/x64/backend.h"

#include <utility>

namespace vmm {

namespace {

x86::CpuidContext cpuid_of(CpuPlace place) {
    return {.apic_id = place.apic_id, .threads = place.threads, .cores = place.cores};
}

class TcgEngine final : public Engine {
public:
    TcgEngine(TcgOptions options, Log& log) : options_(std::move(options)), log_(log) {}
    Result<std::unique_ptr<Vcpu>> make_vcpu(CpuBus& bus, x86::CpuModel const& model, CpuPlace place) override {
        if (options_.lockstep) {
            auto both = TRY(tcg::LockstepVcpu::create({.bus = bus,
                                                       .log = log_,
                                                       .model = model,
                                                       .first = backend(),
                                                       .second = tcg::make_interpreter,
                                                       .bsp = place.bsp,
                                                       .cpuid = cpuid_of(place),
                                                       .trace_ranges = options_.trace_ranges}));
            return std::unique_ptr<Vcpu>(std::move(both));
        }
        return std::unique_ptr<Vcpu>(new tcg::X86Vcpu({.bus = bus,
                                                       .shared = shared_,
                                                       .log = log_,
                                                       .model = model,
                                                       .backend = backend(),
                                                       .bsp = place.bsp,
                                                       .cpuid = cpuid_of(place),
                                                       .index = place.index,
                                                       .trace_ranges = options_.trace_ranges,
                                                       .profile = options_.profile,
                                                       .tiny_tlb = options_.torture_seed != 0}));
    }
    x86::FeatureSet features() const override { return x86::tcg_features(); }

private:
    // A host the code generator cannot serve gets the interpreter.
    tcg::BackendFactory backend() {
        if (options_.backend == TcgBackend::interp) return tcg::make_interpreter;
        return [this](tcg::EngineContext& context, tcg::GuestInfo const& guest) -> std::unique_ptr<tcg::Backend> {
            if (!tcg::x64::supported()) {
                log_.warn("this host CPU lacks AVX2 or BMI2, which translated code uses: interpreting instead");
                return tcg::make_interpreter(context, guest);
            }
            auto made = tcg::x64::X64Backend::create(context, guest, x64_options());
            if (made) return std::move(*made);
            log_.warn("{}: interpreting instead", made.error().message());
            return tcg::make_interpreter(context, guest);
        };
    }

    tcg::x64::Options x64_options() const {
        tcg::x64::Options x64{.cache_bytes = options_.code_cache_bytes,
                              .count_instructions = options_.lockstep,
                              .one_cpu = options_.one_cpu,
                              .perf_map = options_.perf_map,
                              .profile = options_.profile};
        if (options_.torture_seed) {
            x64.cache_bytes = tcg::x64::min_cache_bytes;
            x64.unlink_one_in = 16;
            x64.refuse_one_in = 1000;
            x64.seed = options_.torture_seed;
        }
        return x64;
    }

    TcgOptions options_;
    Log& log_;
    tcg::Shared shared_;
};

class KvmEngine final : public Engine, public WriteShortcutEngine {
public:
    KvmEngine(std::unique_ptr<kvm::KvmMachine> machine, bool lockstep, Log& log)
        : machine_(std::move(machine)), log_(log), lockstep_(lockstep) {
        if (machine_->options().irqchip != kvm::KernelIrqchip::off) controllers_.emplace(*machine_, log);
    }
    Result<std::unique_ptr<Vcpu>> make_vcpu(CpuBus& bus, x86::CpuModel const& model, CpuPlace place) override {
        if (!std::exchange(has_memory_, true)) TRY(machine_->use_memory(bus.memory()));
        if (lockstep_) {
            auto both = TRY(KvmLockstepVcpu::create({.machine = *machine_,
                                                     .bus = bus,
                                                     .log = log_,
                                                     .model = model,
                                                     .cpuid = cpuid_of(place),
                                                     .bsp = place.bsp}));
            vcpus_.push_back(&both->kvm());
            return std::unique_ptr<Vcpu>(std::move(both));
        }
        auto vcpu = TRY(kvm::KvmVcpu::create(
            {.machine = *machine_, .bus = bus, .model = model, .cpuid = cpuid_of(place), .bsp = place.bsp}));
        if (controllers_) controllers_->add_vcpu(*vcpu);
        vcpus_.push_back(&*vcpu);
        return std::unique_ptr<Vcpu>(std::move(vcpu));
    }
    KernelControllers* controllers() override { return controllers_ ? &*controllers_ : nullptr; }
    void release_memory() override {
        if (controllers_) controllers_->forget_vcpus();
        vcpus_.clear();
        machine_->detach_memory();
        has_memory_ = false;
    }
    std::uint64_t tsc_hz() const override {
        return vcpus_.empty() || machine_->caps().tsc_control ? 0 : vcpus_[0]->tsc_hz();
    }
    WriteShortcutEngine* write_shortcuts() override { return lockstep_ ? nullptr : this; }
    Result<bool> take_doorbell(int eventfd, Doorbell const& d) override {
        TRY(kvm::KvmIrqs(*machine_).attach_ioeventfd(eventfd, {.address = d.address,
                                                               .size = d.size,
                                                               .port = d.port,
                                                               .match_data = d.value.has_value(),
                                                               .data = d.value.value_or(0)}));
        return true;
    }
    Result<bool> take_late_writes(LateWrites const& writes) override {
        return machine_->add_coalesced_zone(writes.range.first, std::uint32_t(writes.range.size()), writes.port);
    }
    // CPUs keep what IA32_TSC_ADJUST sets them apart and not a tick more: one offset serves all of them.
    Result<void> start_time(GuestTime& time) override {
        if (vcpus_.empty()) return {};
        TRY(machine_->set_kvmclock(std::uint64_t(time.clock.now() + time.paravirtual_lead)));
        auto first = TRY(vcpus_[0]->time_stamp());
        std::uint64_t ahead = time.tsc.tsc_now() + first.adjust - first.counter;
        for (kvm::KvmVcpu* vcpu : vcpus_) {
            auto stamp = TRY(vcpu->time_stamp());
            if (first.offset)
                TRY(vcpu->set_time_stamp_offset(*first.offset + ahead + stamp.adjust - first.adjust));
            else
                TRY(vcpu->set_time_stamp(time.tsc.tsc_now() + stamp.adjust));
        }
        time_runs_ = true;
        return {};
    }
    Result<void> stop_time(GuestTime& time) override {
        if (!std::exchange(time_runs_, false)) return {};
        auto stamp = TRY(vcpus_[0]->time_stamp());
        time.tsc.advance(stamp.counter - stamp.adjust - time.tsc.tsc_now());
        time.paravirtual_lead = Nanoseconds(TRY(machine_->kvmclock())) - time.clock.now();
        return {};
    }
    x86::CpuIdentity identity() const override { return x86::CpuIdentity::host; }
    x86::FeatureSet features() const override {
        x86::FeatureSet features = machine_->features();
        if (lockstep_)
            for (std::size_t n = 0; n < features.size(); ++n) features[n] &= x86::tcg_features()[n];
        return features;
    }

private:
    std::unique_ptr<kvm::KvmMachine> machine_;
    Log& log_;
    bool lockstep_;
    std::optional<KernelControllers> controllers_;
    std::vector<kvm::KvmVcpu*> vcpus_;
    bool time_runs_ = false;
    bool has_memory_ = false;
};

} // namespace

std::unique_ptr<Engine> make_tcg_engine(TcgOptions options, Log& log) {
    return std::make_unique<TcgEngine>(std::move(options), log);
}

Result<std::unique_ptr<Engine>> make_kvm_engine(kvm::KvmApi& api, kvm::HostFacts const& host, kvm::KvmOptions options,
                                                Log& log, bool lockstep) {
    VMM_ASSERT(!lockstep || options.irqchip == kvm::KernelIrqchip::off);
    auto machine = TRY(kvm::KvmMachine::create(api, log, host, options));
    return std::unique_ptr<Engine>(new KvmEngine(std::move(machine), lockstep, log));
}

} // namespace vmm
