// parse_command_line: QEMU's command line into a Config. The one entry of this folder.
//
// How main() wires it (main thread, before anything else runs):
//   Offering offering = …boards, CPU models and devices of this build…;
//   auto parsed = parse_command_line({argv, argc}, offering);
//   Log log(program_name(argv[0]));
//   if (!parsed) { log.fail("{}", parsed.error().message()); return 1; }
//   for (auto const& line : parsed->warnings) log.warn("{}", line);
//   if (parsed->print_and_exit) { fputs(parsed->print_and_exit->c_str(), stdout); return 0; }
//   run(parsed->config, log);
#pragma once
#include "vmm/base/result.h"
#include "vmm/options/config.h"
#include "vmm/options/offering.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vmm {

struct CommandLine {
    Config config;
    std::vector<std::string> warnings; // one line each, without prefix: for Log::warn
    // Set by -help, -version, "-cpu help" and the like: print it on standard output and exit with status 0; `config` is
    // then meaningless.
    std::optional<std::string> print_and_exit;
};

// basename(argv[0]): the prefix of every message, also through a symbolic link.
std::string program_name(char const* argv0);

// Parses all of `argv` (argv[0] is the program, whose name may ask for an architecture of guests: architecture.h).
// Opens no file. Errors are what the user reads after "PROGRAM: "; they may have more than one line.
Result<CommandLine> parse_command_line(std::span<char const* const> argv, Offering const& offering);

} // namespace vmm
