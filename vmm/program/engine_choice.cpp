#include "vmm/program/engine_choice.h"

#include "vmm/base/checked.h"
#include "vmm/options/keyval.h"

namespace vmm {

namespace {

// A block of the longest kind must fit (x64::min_cache_bytes); jumps within the cache reach 2 GiB.
constexpr std::uint64_t min_code_cache = 2 * MiB, max_code_cache = 1024 * MiB;

Result<TcgOptions> tcg_options(Config const& config, AccelConfig const& accel) {
    TcgOptions options;
    options.one_cpu = config.smp.cpus == 1;
    for (TraceRange range : config.trace_ranges) options.trace_ranges.push_back({range.first, range.last});
    options.lockstep = config.lockstep;
    if (config.lockstep && config.smp.cpus > 1)
        return error("lockstep=on compares two engines on one CPU; it does not go with -smp {}", config.smp.cpus);
    if (config.lockstep && accel.properties.has("engine"))
        return error("lockstep=on runs both engines: the JIT drives the machine and the interpreter checks it; leave "
                     "engine= out");
    std::string const* engine = accel.properties.find("engine");
    options.backend = engine && *engine == "interp" ? TcgBackend::interp : TcgBackend::jit;
    if (std::string const* size = accel.properties.find("tb-size"))
        if (std::uint64_t bytes = TRY(parse_size("tb-size", *size, MiB))) options.code_cache_bytes = bytes;
    if (options.code_cache_bytes < min_code_cache || options.code_cache_bytes > max_code_cache)
        return error("tb-size is from {} to {} MiB", min_code_cache / MiB, max_code_cache / MiB);
    options.perf_map = config.perf_map;
    if (std::string const* profile = accel.properties.find("profile"))
        options.profile = TRY(parse_bool("profile", *profile));
    if (std::string const* torture = accel.properties.find("torture")) {
        if (auto on = parse_bool("torture", *torture))
            options.torture_seed = *on;
        else
            options.torture_seed = TRY(parse_number("torture", *torture));
    }
    return options;
}

Result<kvm::KernelIrqchip> parse_irqchip(std::string const& value) {
    if (value == "on") return kvm::KernelIrqchip::on;
    if (value == "off") return kvm::KernelIrqchip::off;
    if (value == "split") return kvm::KernelIrqchip::split;
    return error("Parameter 'kernel-irqchip' does not accept value '{}'; it is on, split or off", value);
}

Result<kvm::KvmOptions> kvm_options(Config const& config, AccelConfig const& accel) {
    kvm::KvmOptions options{.irqchip = kvm::KernelIrqchip::on};
    std::string const* irqchip = accel.properties.find("kernel-irqchip");
    if (!irqchip) irqchip = config.machine.properties.find("kernel-irqchip");
    if (irqchip) options.irqchip = TRY(parse_irqchip(*irqchip));
    if (config.lockstep) {
        if (config.smp.cpus > 1)
            return error("lockstep=on compares two engines on one CPU; it does not go with -smp {}", config.smp.cpus);
        if (irqchip && options.irqchip != kvm::KernelIrqchip::off)
            return error("lockstep=on needs the board's interrupt controllers: kernel-irqchip=off");
        options.irqchip = kvm::KernelIrqchip::off;
    }
    if (std::string const* size = accel.properties.find("dirty-ring-size")) {
        std::uint64_t entries = TRY(parse_number("dirty-ring-size", *size));
        if (entries && (entries < 1024 || entries > 65536 || !is_power_of_two(entries)))
            return error("dirty-ring-size={} is not a power of two from 1024 to 65536", entries);
        options.dirty_ring_entries = unsigned(entries);
    }
    return options;
}

// What the user wrote, of which another engine further on is no cure.
Result<void> check_properties(Config const& config, AccelConfig const& accel) {
    if (accel.name == "kvm") {
        TRY(kvm_options(config, accel));
    } else {
        TRY(tcg_options(config, accel));
    }
    return {};
}

Result<ChosenEngine> make(Config const& config, AccelConfig const& accel, kvm::KvmApi& api, kvm::HostFacts const& host,
                          Log& log) {
    if (accel.name == "kvm") {
        kvm::KvmOptions options = TRY(kvm_options(config, accel));
        return ChosenEngine{TRY(make_kvm_engine(api, host, options, log, config.lockstep)), "kvm", {}};
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
    for (AccelConfig const& accel : config.accels)
        if (auto good = check_properties(config, accel); !good)
            return good.error().with_prefix(fmt::format("-accel {}", accel.name));
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
