#include "vmm/options/trace_items.h"

#include "vmm/base/text.h"

namespace vmm {

namespace {
struct Item {
    std::string_view name;
    std::uint32_t mask;
    std::string_view help;
};
constexpr std::uint32_t bit(Trace which) { return std::uint32_t(which); }
constexpr Item items[] = {
    {"out_asm", bit(Trace::out_asm), "show generated host assembly code for each compiled TB"},
    {"in_asm", bit(Trace::in_asm), "show target assembly code for each compiled TB"},
    {"op", bit(Trace::op), "show micro ops for each compiled TB"},
    {"int", bit(Trace::interrupts), "show interrupts/exceptions in short format"},
    {"exec", bit(Trace::exec), "show trace before each executed TB (lots of logs)"},
    {"cpu", bit(Trace::cpu), "show CPU registers before entering a TB (lots of logs)"},
    {"mmu", bit(Trace::mmu), "log MMU-related activities"},
    {"cpu_reset", bit(Trace::reset), "show CPU state before CPU resets"},
    {"unimp", bit(Trace::unimp), "log unimplemented functionality"},
    {"guest_errors", bit(Trace::guest_errors),
     "log when the guest OS does something invalid (eg accessing a\nnon-existent register)"},
};
} // namespace

Result<std::uint32_t> parse_trace_items(std::string_view list) {
    std::uint32_t mask = 0;
    while (!list.empty()) {
        std::size_t comma = list.find(',');
        std::string_view name = list.substr(0, comma);
        list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
        bool known = name.empty() || name == "none" || name == "nochain"; // we always log every block that is entered
        for (Item const& item : items)
            if (name == item.name || name == "all") mask |= item.mask, known = true;
        if (!known) {
            std::vector<std::string_view> names;
            for (Item const& item : items) names.push_back(item.name);
            return error("unknown log item '{}'{}\n{}", name, did_you_mean(name, names), trace_help());
        }
    }
    return mask;
}

std::string trace_help() {
    std::string text = "Log items (comma separated):\n";
    for (Item const& item : items) text += fmt::format("{:<15} {}\n", item.name, item.help);
    return text;
}

} // namespace vmm
