#include "vmm/program/runner.h"

#include "monitor/monitor.h"
#include "ui/chardev/mux.h"
#include "vmm/options/keyval.h"
#include "vmm/program/engine_choice.h"

#include <ctime>

namespace vmm {

Result<std::unique_ptr<Runner>> Runner::create(Config config, Log& log) {
    std::unique_ptr<Runner> runner(new Runner(std::move(config), log));
    TRY(runner->open_kernel());
    runner->loop_ = TRY(EventLoop::create());
    TRY(runner->open_console());
    TRY(runner->make_machine());
    TRY(runner->make_monitors());
    return runner;
}

Runner::Runner(Config config, Log& log) : config_(std::move(config)), log_(log) {}

Runner::~Runner() {
    monitors_.clear();
    for (ui::DeviceLink* link : serial_links_)
        if (link) link->detach();
    machine_.reset();
}

// Before the terminal and its signals are taken: who waits for a FIFO's writer can leave by Ctrl-C.
Result<void> Runner::open_kernel() {
    if (config_.kernel.empty()) return {};
    bool const check = TRY(bool_of(config_.machine.properties, "initrd-check", true));
    kernel_ = TRY(firmware::KernelLoader::create(
        {.kernel = config_.kernel, .append = config_.append, .initrd = config_.initrd, .check_initrd = check}));
    return {};
}

Result<void> Runner::open_console() {
    terminal_ = TRY(ui::Terminal::create(*loop_, {.on_terminate = [this](std::string const& text) {
        log_.message("", text);
        quit(0);
    }}));
    backends_ = TRY(ui::CharBackends::create(config_, {.loop = *loop_,
                                                       .terminal = *terminal_,
                                                       .log = log_,
                                                       .quit = [this] { quit(0); },
                                                       .commit_drives = [] { return std::size_t(0); }}));
    return {};
}

Result<dev::CharSink*> Runner::link_to(std::string const& chardev) {
    ui::CharStream* stream = TRY(backends_->claim(chardev));
    links_.push_back(std::make_unique<ui::DeviceLink>(*stream, device_lock_));
    return static_cast<dev::CharSink*>(links_.back().get());
}

Result<void> Runner::apply_devices(PcConfig& pc) {
    for (DeviceConfig const& device : config_.devices) {
        auto number = [&](char const* name, std::uint64_t fallback) -> Result<std::uint64_t> {
            std::string const* text = device.properties.find(name);
            if (!text) return fallback;
            auto value = parse_number(name, *text);
            if (!value) return value.error().with_prefix(device.origin);
            return *value;
        };
        if ((device.driver == "isa-debug-exit" && pc.debug_exit) || (device.driver == "isa-debugcon" && pc.debugcon))
            return error("{}: the machine has one {} already", device.origin, device.driver);
        if (device.driver == "isa-debug-exit") {
            std::uint64_t base = TRY(number("iobase", dev::IsaDebugExit::default_port)),
                          size = TRY(number("iosize", dev::IsaDebugExit::default_size));
            if (size == 0 || size > dev::IsaDebugExit::max_size || base + size > 0x10000)
                return error("{}: iobase={:#x},iosize={} does not lie in the I/O ports (iosize is 1 to 4)",
                             device.origin, base, size);
            pc.debug_exit = PcConfig::DebugExit{std::uint16_t(base), std::uint16_t(size)};
        } else if (device.driver == "pc-testdev") {
            pc.testdev = true;
        } else if (device.driver == "isa-debugcon") {
            std::string const* chardev = device.properties.find("chardev");
            if (!chardev) return error("{}: isa-debugcon needs chardev=", device.origin);
            std::uint64_t port = TRY(number("iobase", dev::DebugConsole::default_port));
            if (port > 0xffff) return error("{}: iobase={:#x} is no I/O port", device.origin, port);
            auto sink = link_to(*chardev);
            if (!sink) return sink.error().with_prefix(device.origin);
            pc.debugcon = PcConfig::Debugcon{*sink, std::uint16_t(port)};
        }
    }
    return {};
}

// -rtc: what the clock shows now, and what moves it.
void Runner::apply_clock(PcConfig& pc) const {
    using Source = PcConfig::RtcClock;
    std::string const& clock = config_.rtc.clock;
    pc.rtc_clock = clock == "vm" ? Source::guest : clock == "rt" ? Source::monotonic : Source::host;
    pc.rtc_slew = config_.rtc.slew;
    pc.rtc_start = host_realtime();
    if (config_.rtc.start_seconds) {
        pc.rtc_start = *config_.rtc.start_seconds * nanoseconds_per_second;
    } else if (config_.rtc.localtime) {
        std::time_t now = std::time(nullptr);
        std::tm local{};
        localtime_r(&now, &local);
        pc.rtc_start += local.tm_gmtoff * nanoseconds_per_second;
    }
}

// The 16 bytes of "550e8400-e29b-41d4-a716-446655440000" in order; all zero when empty. The text has been checked.
static std::array<std::uint8_t, 16> uuid_bytes(std::string_view text) {
    std::array<std::uint8_t, 16> bytes{};
    std::size_t digit = 0;
    for (char c : text) {
        if (c == '-' || digit >= 32) continue;
        unsigned v = unsigned(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10) & 15;
        bytes[digit / 2] = std::uint8_t(bytes[digit / 2] << 4 | v);
        ++digit;
    }
    return bytes;
}

// What a machine has that was given none.
static constexpr std::string_view no_uuid = "00000000-0000-0000-0000-000000000000";

static std::string cpu_specification(CpuConfig const& cpu) {
    std::string text = cpu.model.empty() ? "max" : cpu.model;
    for (auto const& [name, value] : cpu.properties.items) text += "," + name + "=" + value;
    return text;
}

Result<void> Runner::make_machine() {
    kvm_api_ = kvm::make_system_kvm_api();
    ChosenEngine chosen = TRY(choose_engine(config_, *kvm_api_, kvm::look_at_host(), log_));
    engine_ = std::move(chosen.engine);
    if (log_.enabled(Trace::reset)) log_.trace(Trace::reset, fmt::format("engine {}: {}\n", chosen.name, chosen.why));

    PcConfig pc;
    apply_clock(pc);
    pc.uuid = uuid_bytes(config_.uuid);
    pc.ram_bytes = config_.memory_bytes;
    pc.ram_prealloc = config_.memory_prealloc;
    pc.ram_in_core_dumps = TRY(bool_of(config_.machine.properties, "dump-guest-core", true));
    TRY(bool_of(config_.machine.properties, "mem-merge", true));
    pc.acpi = TRY(bool_of(config_.machine.properties, "acpi", true));
    pc.hpet = TRY(bool_of(config_.machine.properties, "hpet", true));
    pc.cpus = config_.smp.cpus;
    pc.sockets = config_.smp.sockets, pc.cores = config_.smp.cores, pc.threads = config_.smp.threads;
    std::vector<std::string> warnings;
    pc.cpu_model =
        TRY(x86::make_cpu_model(cpu_specification(config_.cpu), engine_->features(), warnings, engine_->identity()));
    if (pc.threads > 1 && pc.cpu_model.vendor == "AuthenticAMD" && !pc.cpu_model.has(x86::Feature::topoext))
        log_.warn(
            "This family of AMD CPU doesn't support hyperthreading({}): the guest will see {} cores; choose another "
            "model or add +topoext",
            pc.threads, pc.cores * pc.threads);
    for (std::string const& warning : warnings) log_.warn("{}", warning);
    for (std::size_t n = 0; n < config_.serials.size() && n < 4; ++n) {
        serial_links_.push_back(nullptr);
        if (config_.serials[n].empty()) continue;
        pc.serial[n] = TRY(link_to(config_.serials[n]));
        serial_links_.back() = links_.back().get();
    }
    if (config_.debugcon)
        pc.debugcon = PcConfig::Debugcon{TRY(link_to(config_.debugcon->chardev)), config_.debugcon->iobase};
    TRY(apply_devices(pc));
    if (!kernel_)
        return error("there is nothing to boot: this build needs -kernel FILE (a Linux bzImage, an ELF vmlinux or a "
                     "multiboot program); booting disks through firmware is not built yet");
    pc.kernel = std::move(kernel_);
    machine_ = TRY(PcMachine::create(
        std::move(pc), {.loop = *loop_,
                        .log = log_,
                        .engine = *engine_,
                        .device_lock = device_lock_,
                        .events = {.on_reset_request = [this] { guest_reset(); },
                                   .on_power_off = [this] { guest_power_off(); },
                                   .on_debug_exit = [this](int status) { quit(status); },
                                   .on_internal_error = [this](std::string const& text) { internal_error(text); }}}));
    for (std::string const& note : machine_->notes()) log_.message("", note);
    for (std::size_t n = 0; n < serial_links_.size(); ++n)
        if (serial_links_[n]) serial_links_[n]->attach(*machine_->serial(unsigned(n)));
    control_ = std::make_unique<PcControl>(
        *machine_, PcControl::Hooks{.quit = [this] { quit(0); }, .reset = [this] { guest_reset(); }});
    control_->add_topic({"chardev", "show the character devices", "",
                         [this](std::string_view) -> Result<std::string> { return backends_->describe(); }});
    control_->add_topic({"uuid", "show the current VM UUID", "", [this](std::string_view) -> Result<std::string> {
                             return fmt::format("{}\n", config_.uuid.empty() ? no_uuid : config_.uuid);
                         }});
    return {};
}

Result<void> Runner::make_monitors() {
    for (MonitorConfig const& config : config_.monitors) {
        ui::CharStream* stream = TRY(backends_->claim(config.chardev));
        monitors_.push_back(std::make_unique<monitor::Monitor>(monitor::Monitor::Needs{
            .stream = *stream, .machine = *control_, .log = log_, .version = VMM_VERSION, .vm_name = config_.name}));
    }
    return {};
}

int Runner::run() {
    if (!config_.start_paused) {
        machine_->start();
        control_->set_state(monitor::RunState::running);
    }
    loop_->run();
    machine_->stop();
    loop_->run_once(0); // what went wrong with that
    return status_;
}

void Runner::quit(int status) {
    status_ = status;
    loop_->stop();
}

void Runner::guest_reset() {
    if (config_.on_reboot == OnReboot::shutdown) return guest_power_off();
    if (auto done = machine_->reset(); !done) {
        log_.fail("{}", done.error().message());
        quit(1);
    }
}

void Runner::guest_power_off() {
    if (config_.on_shutdown == OnShutdown::poweroff) return quit(0);
    machine_->stop();
    control_->set_state(monitor::RunState::shutdown);
}

void Runner::internal_error(std::string const& text) {
    log_.fail("{}", text);
    machine_->stop();
    control_->set_state(monitor::RunState::internal_error);
    if (config_.monitors.empty() || config_.lockstep) quit(1); // a difference has been reported: that is the result
}

} // namespace vmm
