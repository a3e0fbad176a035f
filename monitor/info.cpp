// `info`: the topics every monitor has, and the machine's own.
#include "monitor/command.h"

#include <algorithm>

namespace vmm::monitor {

namespace {

std::string_view state_text(RunState state) {
    switch (state) {
    case RunState::running: return "running";
    case RunState::paused: return "paused";
    case RunState::prelaunch: return "paused (prelaunch)";
    case RunState::restore_vm: return "paused (restore-vm)";
    case RunState::shutdown: return "paused (shutdown)";
    case RunState::internal_error: return "paused (internal-error)";
    case RunState::guest_panicked: return "paused (guest-panicked)";
    }
    return "";
}

void show_registers(Context& c, std::string_view arguments) {
    bool all = arguments == "-a";
    if (!arguments.empty() && !all) {
        c.out += "info registers: extraneous characters at the end of line\n"
                 "Try \"help info registers\" for more information\n";
        return;
    }
    for (std::size_t cpu = all ? 0 : c.cpu; cpu < (all ? c.machine.cpu_count() : c.cpu + 1); ++cpu)
        c.out += fmt::format("\nCPU#{}\n{}", cpu, c.machine.registers_text(cpu));
}

// One topic of the monitor's own.
struct OwnTopic {
    std::string_view name, arguments, help;
    void (*show)(Context&, std::string_view arguments);
};
constexpr OwnTopic own_topics[] = {
    {"cpus", "", "show infos for each CPU",
     [](Context& c, std::string_view) {
         for (std::size_t i = 0; i < c.machine.cpu_count(); ++i)
             c.out += fmt::format("{} CPU #{}: thread_id={}\n", i == c.cpu ? '*' : ' ', i, c.machine.cpu_thread_id(i));
     }},
    {"history", "", "show the command line history",
     [](Context& c, std::string_view) {
         for (std::size_t i = 0; i < c.history.size(); ++i) c.out += fmt::format("{}: '{}'\n", i, c.history[i]);
     }},
    {"kvm", "", "show KVM information",
     [](Context& c, std::string_view) {
         c.out += fmt::format("kvm support: {}\n", c.machine.kvm_enabled() ? "enabled" : "disabled");
     }},
    {"name", "", "show the current VM name",
     [](Context& c, std::string_view) {
         if (!c.vm_name.empty()) c.out += c.vm_name + "\n";
     }},
    {"registers", "[-a]", "show the cpu registers (-a: show register info for all cpus)", show_registers},
    {"status", "", "show the current VM status (running|paused)",
     [](Context& c, std::string_view) { c.out += fmt::format("VM status: {}\n", state_text(c.machine.state())); }},
    {"version", "", "show the version of VMM", [](Context& c, std::string_view) { c.out += c.version + "\n"; }},
};

// The topic called `name` exactly, else the only one whose name begins so; empty: none or several.
std::string resolve(MachineControl const& machine, std::string_view name) {
    std::string found;
    unsigned matches = 0;
    for (std::string const& topic : info_names(machine)) {
        if (topic == name) return topic;
        if (topic.starts_with(name)) found = topic, ++matches;
    }
    return matches == 1 ? found : "";
}

} // namespace

std::vector<std::string> info_names(MachineControl const& machine) {
    std::vector<std::string> names;
    for (OwnTopic const& topic : own_topics) names.emplace_back(topic.name);
    for (InfoTopic const& topic : machine.info_topics()) names.push_back(topic.name);
    std::ranges::sort(names);
    return names;
}

std::string info_help(Context const& context, std::string_view name) {
    std::map<std::string_view, std::string> lines; // in order of name
    auto add = [&](std::string_view topic, std::string_view arguments, std::string_view help) {
        if (name.empty() || topic == name) lines[topic] = fmt::format("info {} {} -- {}\n", topic, arguments, help);
    };
    for (OwnTopic const& topic : own_topics) add(topic.name, topic.arguments, topic.help);
    for (InfoTopic const& topic : context.machine.info_topics()) add(topic.name, topic.arguments, topic.help);
    std::string text;
    for (auto const& [topic, line] : lines) text += line;
    return text;
}

void info_command(Context& context, Arguments const& arguments) {
    std::string const& rest = arguments.words.at("item");
    if (rest.empty()) {
        context.out += info_help(context, {});
        return;
    }
    std::size_t blank = std::min(rest.find(' '), rest.size());
    std::string word = rest.substr(0, blank);
    std::string_view more = std::string_view(rest).substr(std::min(rest.size(), rest.find_first_not_of(' ', blank)));
    std::string name = resolve(context.machine, word);
    for (OwnTopic const& topic : own_topics)
        if (topic.name == name) return topic.show(context, more);
    for (InfoTopic const& topic : context.machine.info_topics())
        if (topic.name == name) {
            auto text = topic.text(more);
            context.out += text ? *text : fmt::format("Error: {}\n", text.error().message());
            return;
        }
    context.out += fmt::format("unknown command: 'info {}'\n", word);
}

} // namespace vmm::monitor
