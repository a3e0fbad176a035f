// -machine, -accel, -cpu, -smp, -m.
#include "vmm/base/checked.h"
#include "vmm/base/text.h"
#include "vmm/options/keyval.h"
#include "vmm/options/table.h"

#include <algorithm>

namespace vmm {

namespace {

Result<void> add_accel(Parse& parse, std::string_view name, Properties properties) {
    auto const& known = parse.offering.accels;
    if (std::ranges::find(known, name) == known.end())
        return error("invalid accelerator {}{}", name,
                     name.find(':') != name.npos
                         ? fmt::format("; a list is written -machine accel={}", name)
                         : did_you_mean(name, std::vector<std::string_view>(known.begin(), known.end())));
    parse.config.accels.push_back({std::string(name), std::move(properties)});
    return {};
}

MachineInfo const* find_machine(Offering const& offering, std::string_view name) {
    for (MachineInfo const& machine : offering.machines)
        if (name.empty() ? machine.is_default : machine.name == name) {
            if (machine.alias_of.empty()) return &machine;
            return find_machine(offering, machine.alias_of);
        }
    return nullptr;
}

bool has_property(MachineInfo const& machine, std::string_view name) {
    return std::ranges::find(machine.properties, name, &PropertyInfo::name) != machine.properties.end();
}

Result<void> check_property(Offering const& offering, MachineInfo const& machine, std::string const& name,
                            std::string const& value) {
    if (has_property(machine, name)) return {};
    auto const missing = std::ranges::find(offering.missing_machine_properties, name, &MissingProperty::name);
    if (missing != offering.missing_machine_properties.end()) {
        if (value == missing->accepted || value == "auto") return {};
        return error("-machine {}={}: {} is not built yet", name, value, missing->feature);
    }
    std::vector<std::string_view> names;
    for (PropertyInfo const& property : machine.properties) names.push_back(property.name);
    return error("Property '{}-machine.{}' not found{}", machine.name, name, did_you_mean(name, names));
}

} // namespace

Result<void> on_machine(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "type");
    std::string const* type = list.find("type");
    if (type && is_help(*type)) return parse.print(machine_help(parse.offering)), Result<void>();
    if (type) {
        if (!find_machine(parse.offering, *type)) {
            if (is_missing(parse.offering.missing_machines, *type))
                return error("the machine '{}' is not built yet\nUse -machine help to list supported machines", *type);
            std::vector<std::string_view> names;
            for (MachineInfo const& machine : parse.offering.machines) names.push_back(machine.name);
            return error("unsupported machine type{}\nUse -machine help to list supported machines",
                         did_you_mean(*type, names));
        }
        parse.config.machine.type = *type;
        if (std::ranges::any_of(list.items, [](auto const& item) { return is_help(item.first); }))
            return parse.print(machine_property_help(*find_machine(parse.offering, *type))), Result<void>();
    }
    if (std::string const* accel = list.find("accel")) {
        parse.machine_accel_given = true;
        parse.config.accels.clear();
        std::string_view rest = *accel;
        for (std::size_t colon; !rest.empty();
             rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon + 1)) {
            colon = rest.find(':');
            TRY(add_accel(parse, rest.substr(0, colon), {}));
        }
    }
    for (auto& item : list.items)
        if (item.first != "type" && item.first != "accel") parse.config.machine.properties.items.push_back(item);
    return {};
}

Result<void> on_machine_property_off(Parse& parse, OptionRow const& row, std::string_view) {
    parse.config.machine.properties.items.emplace_back(row.name.substr(3), "off"); // "no-hpet": hpet=off
    return {};
}

Result<void> on_accel(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "accel");
    std::string const* given = list.find("accel");
    if (!given) return parse.at(error("Parameter 'accel' is missing"));
    std::string name = *given;
    if (is_help(name)) return parse.print(accel_help(parse.offering)), Result<void>();
    std::erase_if(list.items, [](auto const& item) { return item.first == "accel"; });
    auto known = name == "tcg" ? check_known(list, {"engine", "lockstep", "profile", "tb-size", "thread", "torture"})
                               : check_known(list, {"kernel-irqchip", "dirty-ring-size", "lockstep"});
    parse.accel_given = true;
    std::string const* engine = list.find("engine");
    if (engine && *engine != "jit" && *engine != "interp")
        return parse.at(error("Parameter 'engine' does not accept value '{}'; it is jit or interp", *engine));
    auto lockstep = bool_of(list, "lockstep", false);
    if (!lockstep) return parse.at(lockstep.error());
    parse.config.lockstep |= *lockstep;
    auto added = add_accel(parse, name, std::move(list));
    if (!added) return parse.at(added.error());
    return known ? Result<void>() : Result<void>(parse.at(known.error()));
}

Result<void> on_enable_kvm(Parse& parse, OptionRow const&, std::string_view) {
    parse.machine_accel_given = true;
    parse.config.accels.clear();
    return add_accel(parse, "kvm", {});
}

Result<void> on_cpu(Parse& parse, OptionRow const&, std::string_view argument) {
    if (is_help(argument)) return parse.print(parse.offering.cpu_help), Result<void>();
    CpuConfig cpu;
    std::size_t comma = argument.find(',');
    cpu.model = argument.substr(0, comma);
    std::string_view rest = comma == std::string_view::npos ? std::string_view{} : argument.substr(comma + 1);
    while (!rest.empty()) {
        comma = rest.find(',');
        std::string_view item = rest.substr(0, comma);
        rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
        std::size_t equals = item.find('=');
        if (item.starts_with('+') || item.starts_with('-'))
            cpu.properties.items.emplace_back(item.substr(1), item.front() == '+' ? "on" : "off");
        else if (equals != std::string_view::npos)
            cpu.properties.items.emplace_back(item.substr(0, equals), item.substr(equals + 1));
        else if (!item.empty())
            cpu.properties.items.emplace_back(item, "on");
    }
    auto const& known = parse.offering.cpu_models;
    if (std::ranges::find(known, cpu.model) == known.end())
        return error("unable to find CPU model '{}'{}", cpu.model,
                     did_you_mean(cpu.model, std::vector<std::string_view>(known.begin(), known.end())));
    parse.config.cpu = std::move(cpu);
    return {};
}

Result<void> on_smp(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "cpus");
    TRY(check_known(list, {"cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads"}, "smp"));
    for (auto& item : list.items) parse.smp.items.push_back(item);
    parse.smp_given = true;
    return {};
}

Result<void> on_memory(Parse& parse, OptionRow const&, std::string_view argument) {
    Properties list = parse_list(argument, "size");
    if (auto known = check_known(list, {"size", "slots", "maxmem"}); !known) return parse.at(known.error());
    if (list.has("slots") || list.has("maxmem")) return error("-m slots=, maxmem=: memory hotplug is not built yet");
    std::string const* text = list.find("size");
    if (!text) return {};
    auto size = parse_size("size", *text, MiB);
    if (!size) return parse.at(size.error());
    parse.config.memory_bytes = *size;
    return {};
}

Result<void> on_mem_prealloc(Parse& parse, OptionRow const&, std::string_view) {
    parse.config.memory_prealloc = true;
    return {};
}

namespace {

// Fills in what the user left out of the topology: one thread, one socket, the rest cores; then checks it.
Result<SmpConfig> resolve_topology(Parse& parse, MachineInfo const* machine) {
    constexpr std::uint64_t most = 4096; // above any machine's limit, so that products cannot overflow
    auto number = [&](std::string_view key) -> Result<std::uint64_t> {
        std::string const* text = parse.smp.find(key);
        if (!text) return std::uint64_t(0);
        auto value = parse_number(key, *text);
        if (!value) return error("Parameter 'smp.{}' expects integer", key);
        if (*value == 0) {
            parse.warn(
                "Deprecated CPU topology (considered invalid): CPU topology parameters must be greater than zero");
            return std::uint64_t(key == "cpus" ? 1 : 0);
        }
        return std::min(*value, most);
    };
    std::uint64_t cpus = TRY(number("cpus")), maxcpus = TRY(number("maxcpus")), sockets = TRY(number("sockets"));
    std::uint64_t dies = TRY(number("dies")), clusters = TRY(number("clusters"));
    std::uint64_t cores = TRY(number("cores")), threads = TRY(number("threads"));
    if (dies > 1) return error("dies not supported by this machine's CPU topology");
    if (clusters > 1) return error("clusters not supported by this machine's CPU topology");
    std::uint64_t total = maxcpus ? maxcpus : cpus;
    if (!threads) threads = cores && sockets && total ? std::max<std::uint64_t>(1, total / (cores * sockets)) : 1;
    if (!cores) cores = total ? std::max<std::uint64_t>(1, total / (std::max<std::uint64_t>(sockets, 1) * threads)) : 1;
    if (!sockets) sockets = total ? std::max<std::uint64_t>(1, total / (cores * threads)) : 1;
    if (!maxcpus) maxcpus = cpus ? cpus : sockets * cores * threads;
    if (!cpus) cpus = maxcpus;
    if (sockets * cores * threads != maxcpus)
        return error("Invalid CPU topology: product of the hierarchy must match maxcpus: sockets ({}) * cores ({}) * "
                     "threads ({}) != maxcpus ({})",
                     sockets, cores, threads, maxcpus);
    if (cpus > maxcpus)
        return error("Invalid CPU topology: maxcpus must be equal to or greater than smp: maxcpus ({}) < smp_cpus ({})",
                     maxcpus, cpus);
    if (machine && maxcpus > machine->max_cpus)
        return error("Invalid SMP CPUs {}. The max CPUs supported by machine '{}' is {}", maxcpus, machine->name,
                     machine->max_cpus);
    SmpConfig smp;
    smp.cpus = unsigned(cpus), smp.maxcpus = unsigned(maxcpus);
    smp.sockets = unsigned(sockets), smp.cores = unsigned(cores), smp.threads = unsigned(threads);
    return smp;
}

} // namespace

Result<void> finish_machine(Parse& parse) {
    Config& config = parse.config;
    MachineInfo const* machine = find_machine(parse.offering, config.machine.type);
    if (!machine && !parse.offering.machines.empty())
        return error("No machine specified, and there is no default\nUse -machine help to list supported machines");
    if (parse.machine_accel_given && parse.accel_given)
        return error("The -accel and \"-machine accel=\" options are incompatible (-enable-kvm counts as the latter)");
    if (machine) {
        auto& given = config.machine.properties.items;
        for (auto const& [key, value] : given) TRY(check_property(parse.offering, *machine, key, value));
        std::erase_if(given, [&](auto const& item) { return !has_property(*machine, item.first); });
    }
    if (parse.smp_given) config.smp = TRY(resolve_topology(parse, machine));
    constexpr std::uint64_t smallest = 2 * MiB; // below this there is no room for a loader, let alone a kernel
    if (config.memory_bytes < smallest)
        return error("-m: {} KiB is too little memory; the machine needs at least 2 MiB", config.memory_bytes / KiB);
    std::uint64_t host = parse.offering.host_memory_bytes;
    if (host != 0 && config.memory_bytes > host)
        return error(
            "cannot set up guest memory 'pc.ram': Cannot allocate memory (-m asks for {} MiB, the host has {} MiB)",
            config.memory_bytes / MiB, host / MiB);
    config.memory_bytes = align_up<std::uint64_t>(config.memory_bytes, 8 * KiB);
    // A program called kvm or qemu-kvm is one that prefers KVM.
    if (config.accels.empty() && config.program.ends_with("kvm")) config.accels = {{"kvm", {}}, {"tcg", {}}};
    return {};
}

} // namespace vmm
