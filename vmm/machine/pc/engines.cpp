#include "vmm/machine/pc/engines.h"

#include "vmm/tcg/engine/x86_vcpu.h"

namespace vmm {

namespace {

class TcgEngine final : public Engine {
public:
    TcgEngine(TcgOptions options, Log& log) : options_(options), log_(log) {}
    std::unique_ptr<Vcpu> make_vcpu(CpuBus& bus, x86::CpuModel const& model, CpuPlace place) override {
        return std::make_unique<tcg::X86Vcpu>(tcg::X86Vcpu::Config{.bus = bus,
                                                                   .shared = shared_,
                                                                   .log = log_,
                                                                   .model = model,
                                                                   .backend = tcg::make_interpreter,
                                                                   .bsp = place.bsp,
                                                                   .index = place.apic_id});
    }
    x86::FeatureSet features() const override { return x86::tcg_features(); }

private:
    TcgOptions options_;
    Log& log_;
    tcg::Shared shared_;
};

} // namespace

std::unique_ptr<Engine> make_tcg_engine(TcgOptions options, Log& log) {
    return std::make_unique<TcgEngine>(options, log);
}

} // namespace vmm
