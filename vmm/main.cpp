// The program `vmm`: command line in, exit status out.
#include "vmm/base/log.h"
#include "vmm/options/options.h"
#include "vmm/program/doctor.h"
#include "vmm/program/offering.h"
#include "vmm/program/process.h"
#include "vmm/program/runner.h"

#include <malloc.h>
#include <sys/prctl.h>

#include <cstdio>
#include <optional>
#include <span>
#include <string_view>

using namespace vmm;

int main(int argc, char** argv) {
    // A vCPU's thread allocates for each block it translates; a heap of its own would grow by a system call a page.
    mallopt(M_ARENA_MAX, 1);
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
    std::optional<Daemon> daemon;
    std::optional<PidFile> pid_file;
    if (!parsed->config.process_name.empty()) prctl(PR_SET_NAME, parsed->config.process_name.c_str());
    if (parsed->config.daemonize) {
        auto detached = Daemon::detach();
        if (!detached) return log.fail("{}", detached.error().message()), 1;
        daemon = std::move(*detached);
    }
    if (!parsed->config.pidfile.empty()) {
        auto file = PidFile::create(parsed->config.pidfile);
        if (!file) return log.fail("{}", file.error().message()), 1;
        pid_file = std::move(*file);
    }
    auto runner = Runner::create(std::move(parsed->config), log);
    if (!runner) {
        log.fail("{}", runner.error().message());
        return 1;
    }
    if (daemon) daemon->ready();
    return (*runner)->run();
}
