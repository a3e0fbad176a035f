// The program `vmm`: command line in, exit status out.
#include "vmm/base/log.h"
#include "vmm/options/options.h"
#include "vmm/program/doctor.h"
#include "vmm/program/offering.h"
#include "vmm/program/runner.h"

#include <cstdio>
#include <span>
#include <string_view>

using namespace vmm;

int main(int argc, char** argv) {
    std::string program = program_name(argc > 0 ? argv[0] : nullptr);
    Log log(program);
    if (argc == 2 && std::string_view(argv[1]) == "doctor") {
        auto kvm = kvm::make_system_kvm_api();
        std::fputs(examine(doctor_host(*kvm)).c_str(), stdout);
        return 0;
    }
    auto parsed = parse_command_line(std::span<char const* const>(argv, std::size_t(argc)), make_offering());
    if (!parsed) {
        log.fail("{}", parsed.error().message());
        return 1;
    }
    if (parsed->print_and_exit) {
        std::fputs(parsed->print_and_exit->c_str(), stdout);
        return 0;
    }
    for (std::string const& warning : parsed->warnings) log.warn("{}", warning);
    log.set_trace_mask(parsed->config.trace_mask);
    if (!parsed->config.trace_file.empty() && !log.set_trace_file(parsed->config.trace_file)) {
        log.fail("-D {}: {}", parsed->config.trace_file,
                 error_from_errno(errno, "Could not open the log file").message());
        return 1;
    }
    auto runner = Runner::create(std::move(parsed->config), log);
    if (!runner) {
        log.fail("{}", runner.error().message());
        return 1;
    }
    return (*runner)->run();
}
