#include "vmm/program/engine_choice.h"

#include "vmm/base/checked.h"
#include "vmm/options/keyval.h"

namespace vmm {

namespace {

Result<TcgOptions> tcg_options(Config const& config, AccelConfig const& accel) {
    TcgOptions options;
    for (TraceRange range : config.trace_ranges) options.trace_ranges.push_back({range.first, range.last});
    std::string const* engine = accel.properties.find("engine");
    options.backend = engine && *engine == "interp" ? TcgBackend::interp : TcgBackend::jit;
    if (std::string const* size = accel.properties.find("tb-size"))
        options.code_cache_bytes = TRY(parse_size("tb-size", *size, MiB));
    return options;
}

Result<kvm::KernelIrqchip> parse_irqchip(std::string const& value) {
    if (value == "on") return kvm::KernelIrqchip::on;
    if (value == "off") return kvm::KernelIrqchip::off;
    if (value == "split") return kvm::KernelIrqchip::split;
    return error("Parameter 'kernel-irqchip' does not accept value '{}'; it is on, split or off", value);
}

Result<kvm::KvmOptions> kvm_options(Config const& config, AccelConfig const& accel) {
    kvm::KvmOptions options;
    std::string const* irqchip = accel.properties.find("kernel-irqchip");
    if (!irqchip) irqchip = config.machine.properties.find("kernel-irqchip");
    if (irqchip) options.irqchip = TRY(parse_irqchip(*irqchip));
    if (options.irqchip != kvm::KernelIrqchip::off)
        return error("kernel-irqchip={} is not built yet; kernel-irqchip=off keeps the interrupt controllers in vmm",
                     *irqchip);
    if (std::string const* size = accel.properties.find("dirty-ring-size")) {
        std::uint64_t entries = TRY(parse_number("dirty-ring-size", *size));
        if (entries && (entries < 1024 || entries > 65536 || !is_power_of_two(entries)))
            return error("dirty-ring-size={} is not a power of two from 1024 to 65536", entries);
        options.dirty_ring_entries = unsigned(entries);
    }
    return options;
}

Result<ChosenEngine> make(Config const& config, AccelConfig const& accel, kvm::KvmApi& api, kvm::HostFacts const& host,
                          Log& log) {
    if (accel.name == "kvm") {
        kvm::KvmOptions options = TRY(kvm_options(config, accel));
        return ChosenEngine{TRY(make_kvm_engine(api, host, options, log)), "kvm", {}};
    }
    return ChosenEngine{make_tcg_engine(TRY(tcg_options(config, accel)), log), "tcg", {}};
}

} // namespace

Result<ChosenEngine> choose_engine(Config const& config, kvm::KvmApi& api, kvm::HostFacts const& host, Log& log) {
    if (config.accels.empty()) {
        std::string why;
        AccelConfig accel{.name = kvm::prefer_kvm(api, host, why) ? "kvm" : "tcg", .properties = {}};
        auto chosen = make(config, accel, api, host, log);
        if (!chosen && accel.name == "kvm") { // opened a moment ago, but has no virtual machine for us
            why = chosen.error().message();
            chosen = make(config, {.name = "tcg", .properties = {}}, api, host, log);
        }
        if (chosen) chosen->why = why;
        return chosen;
    }
    std::string reasons;
    for (std::size_t n = 0; n < config.accels.size(); ++n) {
        AccelConfig const& accel = config.accels[n];
        auto chosen = make(config, accel, api, host, log);
        if (chosen) {
            chosen->why = reasons.empty() ? "asked for" : reasons;
            if (!reasons.empty()) log.message("", fmt::format("falling back to {}", accel.name));
            return chosen;
        }
        Error failure = chosen.error().with_prefix(fmt::format("failed to initialize {}", accel.name));
        if (n + 1 == config.accels.size()) return failure;
        log.message("", failure.message());
        reasons = failure.message().substr(0, failure.message().find('\n'));
    }
    VMM_UNREACHABLE();
}

} // namespace vmm
