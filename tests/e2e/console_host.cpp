// A program with vmm's command line, console and monitor but a toy on the serial port instead of a machine: it prints
// "ready" and then echoes in hexadecimal what it gets. A few letters make it misbehave. What tests of the terminal
// drive.
#include "monitor/monitor.h"
#include "tests/support/fake_machine_control.h"
#include "ui/chardev/char_backends.h"
#include "ui/chardev/device_link.h"
#include "vmm/options/options.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>

using namespace vmm;

namespace {

class Toy final : public dev::CharReceiver {
public:
    explicit Toy(dev::CharSink& sink) : sink_(sink) {
        sink_.set_on_writable([this] { flush(); });
    }
    void say(std::string_view text) {
        pending_ += text;
        flush();
    }
    std::size_t can_receive() const override { return 16; }
    void receive(std::span<std::uint8_t const> bytes) override {
        for (std::uint8_t byte : bytes) {
            if (byte == 'A') std::abort();
            if (byte == 'S') {
                int volatile* volatile nowhere = reinterpret_cast<int volatile*>(std::uintptr_t(16));
                *nowhere = 1;
            }
            if (byte == 'W') say("\x1b[?7l\x1b[?1049h\x1b[?25l");
            if (byte == 'L') say(std::string(200'000, 'l') + "\r\n");
            say(fmt::format("<{:02x}>", byte));
        }
    }
    void receive_break() override { say("<break>"); }
    void set_on_can_receive(std::function<void()>) override {}

private:
    void flush() {
        std::size_t n = sink_.write({reinterpret_cast<std::uint8_t const*>(pending_.data()), pending_.size()});
        pending_.erase(0, n);
    }
    dev::CharSink& sink_;
    std::string pending_;
};

class LoopMachine final : public monitor::MachineControl {
public:
    LoopMachine(EventLoop& loop) : loop_(loop) {}
    void quit() override { loop_.stop(); }
    void stop() override { fake_.stop(); }
    Result<void> cont() override { return fake_.cont(); }
    monitor::RunState state() const override { return fake_.state(); }
    void reset() override {}
    void powerdown() override {}
    void inject_nmi() override {}
    std::size_t cpu_count() const override { return 1; }
    std::string registers_text(std::size_t cpu) const override { return fake_.registers_text(cpu); }
    std::optional<std::uint64_t> register_value(std::size_t, std::string_view) const override { return {}; }
    bool read_memory(monitor::Space, std::size_t, std::uint64_t, std::span<std::uint8_t>) const override {
        return false;
    }
    std::optional<Instruction> disassemble(std::size_t, std::uint64_t, std::span<std::uint8_t const>) const override {
        return {};
    }
    std::vector<monitor::InfoTopic> const& info_topics() const override { return fake_.info_topics(); }
    bool kvm_enabled() const override { return false; }
    int cpu_thread_id(std::size_t) const override { return 0; }

private:
    EventLoop& loop_;
    test::FakeMachineControl fake_;
};

int run(Config const& config, Log& log) {
    auto loop = EventLoop::create().value();
    auto terminal = ui::Terminal::create(*loop, {.on_terminate = [&](std::string const& text) {
        log.fail("{}", text);
        loop->stop();
    }});
    auto backends = ui::CharBackends::create(
        config,
        {.loop = *loop, .terminal = **terminal, .log = log, .quit = [&] { loop->stop(); }, .commit_drives = {}});
    if (!backends) {
        log.fail("{}", backends.error().message());
        return 1;
    }
    Mutex device_lock;
    LoopMachine machine(*loop);
    ui::DeviceLink link(**(*backends)->claim(config.serials.at(0)), device_lock);
    Toy toy(link);
    link.attach(toy);
    std::vector<std::unique_ptr<monitor::Monitor>> monitors;
    for (auto const& item : config.monitors)
        monitors.push_back(std::make_unique<monitor::Monitor>(
            monitor::Monitor::Needs{**(*backends)->claim(item.chardev), machine, log, "0", config.name}));
    {
        MutexLock lock(device_lock);
        toy.say("ready\r\n");
    }
    loop->run();
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    Offering offering;
    offering.version = "0";
    auto parsed = parse_command_line({argv, std::size_t(argc)}, offering);
    Log log(program_name(argv[0]));
    if (!parsed) {
        log.fail("{}", parsed.error().message());
        return 1;
    }
    return run(parsed->config, log);
}
