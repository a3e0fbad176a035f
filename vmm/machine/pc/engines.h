// Making vCPUs of the engine the user chose.
#pragma once
#include "vmm/base/log.h"
#include "vmm/cpu/cpu_bus.h"
#include "vmm/cpu/vcpu.h"
#include "vmm/cpu/x86/cpu_model.h"

#include <memory>
#include <string>

namespace vmm {

// Where a vCPU stands in the machine.
struct CpuPlace {
    std::uint32_t apic_id = 0;
    bool bsp = false;
};

// One engine for all vCPUs of a machine; outlives them.
class Engine {
public:
    virtual ~Engine() = default;
    virtual std::unique_ptr<Vcpu> make_vcpu(CpuBus& bus, x86::CpuModel const& model, CpuPlace place) = 0;
    // What CPU models are cut down to.
    virtual x86::FeatureSet features() const = 0;
};

enum class TcgBackend : std::uint8_t { interp, jit };
struct TcgOptions {
    TcgBackend backend = TcgBackend::interp;
    std::uint64_t code_cache_bytes = 64 << 20; // tb-size
};
std::unique_ptr<Engine> make_tcg_engine(TcgOptions options, Log& log);

} // namespace vmm
