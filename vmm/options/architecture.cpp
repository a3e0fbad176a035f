#include "vmm/options/architecture.h"

#include "vmm/options/keyval.h"
#include "vmm/options/table.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace vmm {

std::string_view architecture_in_name(std::string_view program) {
    constexpr std::string_view mark = "-system-";
    std::size_t at = program.find(mark);
    return at == std::string_view::npos ? std::string_view{} : program.substr(at + mark.size());
}

bool offers_architecture(Offering const& offering, std::string_view architecture) {
    return architecture.empty() || std::ranges::any_of(offering.architectures, [&](std::string const& built) {
               return architecture == built || (architecture.starts_with(built) && architecture[built.size()] == '-');
           });
}

namespace {

// The engine that a list of options insists on: the only one it names.
std::string insisted_engine(std::span<char const* const> argv) {
    std::vector<std::string> named;
    for (std::size_t i = 1; i < argv.size(); ++i) {
        std::string_view word = argv[i];
        if (!word.starts_with('-')) continue;
        std::string_view name = word.substr(word.starts_with("--") ? 2 : 1);
        OptionRow const* row = find_option(name);
        if (name == "enable-kvm") named.emplace_back("kvm");
        if (!row || row->arguments.empty() || i + 1 == argv.size()) continue;
        std::string_view argument = argv[++i];
        if (name != "accel" && name != "machine" && name != "M") continue;
        if (auto* engine = parse_list(argument, name == "accel" ? "accel" : "type").find("accel"))
            named.push_back(*engine);
    }
    return named.size() == 1 ? named.front() : std::string();
}

} // namespace

Error foreign_architecture(Offering const& offering, std::string_view architecture, std::span<char const* const> argv) {
    std::string missing = fmt::format("{} guests are not built yet; this build runs guests of {}", architecture,
                                      fmt::join(offering.architectures, " and "));
    if (insisted_engine(argv) != "kvm") return Error(missing);
    return error("invalid accelerator kvm: on this x86 host KVM runs x86 guests only, so {} ones need -accel tcg "
                 "(though {})",
                 architecture, missing);
}

} // namespace vmm
