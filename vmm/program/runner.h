// Runner: one run of the program: builds the machine a Config describes, runs it, and says what status to exit with.
#pragma once
#include "ui/chardev/char_backends.h"
#include "ui/chardev/device_link.h"
#include "ui/chardev/mux.h"
#include "ui/chardev/terminal.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/log.h"
#include "vmm/machine/pc/pc_machine.h"
#include "vmm/options/config.h"
#include "vmm/program/machine_control.h"

#include <memory>
#include <optional>
#include <vector>

namespace vmm::monitor {
class Monitor;
}

namespace vmm {

// Everything on the thread that made it. Members are destroyed in reverse: monitors, machine, links, backends,
// terminal.
class Runner {
public:
    static Result<std::unique_ptr<Runner>> create(Config config, Log& log);
    ~Runner();
    // Runs until the guest or the user ends it; the exit status.
    int run();

private:
    Runner(Config config, Log& log);
    Result<void> open_kernel();
    Result<void> open_console();
    Result<dev::CharSink*> link_to(std::string const& chardev);
    Result<void> make_machine();
    Result<void> make_monitors();
    Result<void> apply_devices(PcConfig& pc);
    void apply_clock(PcConfig& pc) const;
    void quit(int status);
    void guest_reset();
    void guest_power_off();
    void internal_error(std::string const& text);

    Config config_;
    Log& log_;
    int status_ = 0;
    std::optional<firmware::KernelLoader> kernel_; // until the machine has it
    std::unique_ptr<EventLoop> loop_;
    std::unique_ptr<ui::Terminal> terminal_;
    std::unique_ptr<ui::CharBackends> backends_;
    std::unique_ptr<kvm::KvmApi> kvm_api_;
    std::unique_ptr<Engine> engine_;
    Mutex device_lock_;
    std::vector<std::unique_ptr<ui::DeviceLink>> links_;
    std::vector<ui::DeviceLink*> serial_links_;
    std::unique_ptr<PcMachine> machine_;
    std::unique_ptr<PcControl> control_;
    std::vector<std::unique_ptr<monitor::Monitor>> monitors_;
};

} // namespace vmm
