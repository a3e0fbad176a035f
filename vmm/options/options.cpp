#include "vmm/options/options.h"

#include "vmm/base/text.h"
#include "vmm/options/architecture.h"
#include "vmm/options/table.h"

#include <algorithm>

namespace vmm {

std::string program_name(char const* argv0) {
    std::string_view path = argv0 ? argv0 : "";
    std::string_view name = path.substr(path.rfind('/') + 1);
    return name.empty() ? "vmm" : std::string(name);
}

namespace {

Error unknown_option(std::string_view word, std::string_view name) {
    std::vector<std::string_view> names;
    for (auto table : {option_table(), legacy_option_table()})
        for (OptionRow const& row : table)
            if (!row.name.empty()) names.push_back(row.name);
    std::string_view found = nearest(name, names);
    return error("{}: invalid option{}", word, found.empty() ? "" : fmt::format("; did you mean -{}?", found));
}

// A word that is no option: a disk image, or the rest of a kernel command line whose quotes are missing.
Result<void> positional(Parse& parse, std::string_view word, std::string_view previous_option) {
    bool kernel_words = word.find('=') != std::string_view::npos || word == "quiet" || word == "ro" || word == "rw";
    if (previous_option == "append" && kernel_words)
        return error("{} {}: the kernel's arguments must be one word; put all of them in quotes: -append \"{} {}\"{}",
                     parse.spelled, word, parse.config.append, word,
                     parse.config.append.starts_with('/')
                         ? fmt::format(" (an initial ram disk goes by itself: -initrd {})", parse.config.append)
                         : "");
    parse.spelled = word;
    return on_drive_slot(parse, *find_option("hda"), word);
}

Result<void> handle(Parse& parse, OptionRow const& row, std::string_view argument) {
    if (!row.handler || (row.needs && !(parse.offering.built.*row.needs))) return not_built(row, row.missing);
    return row.handler(parse, row, argument);
}

// -help and -version are about the program, whatever it is called.
bool asks_about_the_program(std::span<char const* const> argv) {
    return argv.size() > 1 && std::ranges::all_of(argv.subspan(1), [](std::string_view word) {
               std::string_view name = word.substr(word.starts_with("--") ? 2 : word.starts_with('-'));
               return name == "h" || name == "help" || name == "version";
           });
}

Result<void> finish(Parse& parse) {
    Config& config = parse.config;
    TRY(finish_machine(parse));
    if (parse.append_given && config.kernel.empty()) return error("-append only allowed with -kernel option");
    if (parse.initrd_given && config.kernel.empty()) return error("-initrd only allowed with -kernel option");
    if (!parse.offering.built.disks && !config.drives.empty())
        return error("{}: disks are not built yet", config.drives.front().origin);
    if (!config.nographic && !parse.display_given && !parse.offering.built.display) {
        config.display = "none";
        if (!parse.serial_given && !config.debugcon)
            parse.warn("a graphical window is not built yet; -nographic puts the serial console in this terminal");
    }
    return finish_characters(parse);
}

} // namespace

Result<CommandLine> parse_command_line(std::span<char const* const> argv, Offering const& offering) {
    CommandLine out;
    out.config.program = program_name(argv.empty() ? nullptr : argv[0]);
    std::string_view architecture = architecture_in_name(out.config.program);
    if (!offers_architecture(offering, architecture) && !asks_about_the_program(argv))
        return foreign_architecture(offering, architecture, argv);
    Parse parse{.offering = offering, .out = out, .config = out.config, .spelled = {}, .smp = {}};
    std::string_view previous_option;
    for (std::size_t i = 1; i < argv.size(); ++i) {
        std::string_view word = argv[i];
        if (!word.starts_with('-') || word == "-") {
            TRY(positional(parse, word, previous_option));
            previous_option = {};
            continue;
        }
        std::string_view name = word.substr(word.starts_with("--") ? 2 : 1);
        OptionRow const* row = find_option(name);
        if (!row) return unknown_option(word, name);
        std::string_view argument;
        parse.spelled = word;
        if (!row->arguments.empty()) {
            if (i + 1 == argv.size()) return error("{}: requires an argument", word);
            argument = argv[++i];
            parse.spelled = fmt::format("{} {}", word, argument);
        }
        TRY(handle(parse, *row, argument));
        if (out.print_and_exit) return out;
        previous_option = name;
    }
    TRY(finish(parse));
    return out;
}

} // namespace vmm
