// Runs a bare-metal program on a PC that changes its engine at random moments, until it has done so often enough:
//
//     move_host PROGRAM.elf MOVES [cpus=N] [seed=N] [engines=kvm,split,off,jit,interp] [only=CASE]
//
// The program's verdict counts at each of its ends. Exit status 77: no KVM here.
#include "vmm/base/checked.h"
#include "vmm/machine/pc/pc_machine.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <thread>

using namespace vmm;

namespace {

struct Console final : dev::CharSink {
    std::string text;
    std::size_t write(std::span<std::uint8_t const> bytes) override {
        text.append(reinterpret_cast<char const*>(bytes.data()), bytes.size());
        return bytes.size();
    }
    void set_on_writable(std::function<void()>) override {}
    void send_break(bool) override {}
};

struct Arguments {
    std::string program, engines = "kvm,split,off,jit,interp", only{};
    unsigned moves = 0, cpus = 1, seed = 1;
};

Arguments parse(int argc, char** argv) {
    Arguments a{.program = argv[1], .moves = unsigned(std::stoul(argv[2]))};
    for (int n = 3; n < argc; ++n) {
        std::string text = argv[n];
        std::string value = text.substr(text.find('=') + 1);
        if (text.starts_with("cpus=")) a.cpus = unsigned(std::stoul(value));
        if (text.starts_with("seed=")) a.seed = unsigned(std::stoul(value));
        if (text.starts_with("engines=")) a.engines = value;
        if (text.starts_with("only=")) a.only = " " + text;
    }
    return a;
}

struct Host {
    Log log{"move_host"};
    std::unique_ptr<kvm::KvmApi> api = kvm::make_system_kvm_api();
    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    Mutex device_lock;

    Result<std::unique_ptr<Engine>> make(std::string const& name) {
        if (name == "jit") return make_tcg_engine({.backend = TcgBackend::jit}, log);
        if (name == "interp") return make_tcg_engine({.backend = TcgBackend::interp}, log);
        auto irqchip = name == "kvm"     ? kvm::KernelIrqchip::on
                       : name == "split" ? kvm::KernelIrqchip::split
                                         : kvm::KernelIrqchip::off;
        return make_kvm_engine(*api, kvm::look_at_host(), {.irqchip = irqchip}, log);
    }
};

// One run of the program; its exit status, or -1 for a machine that could not go on.
int run(Host& host, Arguments const& a, std::vector<std::string> const& names, std::mt19937& random, unsigned& moves,
        std::map<std::string, unsigned>& pairs) {
    // The board's TSC takes the rate of the first engine: a KVM that cannot scale it has to be that.
    std::string now = names[random() % names.size()];
    while (now != "kvm" && std::ranges::find(names, "kvm") != names.end()) now = names[random() % names.size()];
    std::unique_ptr<Engine> engine = host.make(now).value();
    x86::FeatureSet features = engine->features();
    for (std::string const& name : names) {
        x86::FeatureSet others = host.make(name).value()->features();
        for (std::size_t n = 0; n < features.size(); ++n) features[n] &= others[n];
    }
    std::vector<std::string> warnings;
    Console console;
    PcConfig config;
    config.cpus = a.cpus;
    config.cores = a.cpus;
    config.cpu_model = x86::make_cpu_model("qemu64,+tsc-deadline", features, warnings).value();
    config.debugcon = PcConfig::Debugcon{&console};
    config.debug_exit = PcConfig::DebugExit{.port = 0xf4, .size = 4};
    config.testdev = true;
    auto kernel = firmware::KernelLoader::create(
        {.kernel = a.program, .append = fmt::format("cpus={}{}", a.cpus, a.only), .initrd = {}});
    if (!kernel) return fmt::print("{}\n", kernel.error().message()), -1;
    config.kernel = std::move(kernel).value();
    int status = -2;
    auto made = PcMachine::create(
        std::move(config), {.loop = *host.loop,
                            .log = host.log,
                            .engine = *engine,
                            .device_lock = host.device_lock,
                            .events = {.on_reset_request = [&] { fmt::print("reset under {}\n", now), status = -1; },
                                       .on_power_off = [&] { status = -1; },
                                       .on_debug_exit = [&](int code) { status = code; },
                                       .on_internal_error =
                                           [&](std::string const& text) {
                                               fmt::print("under {}: {}\n", now, text.substr(0, 400));
                                               status = -1;
                                           }}});
    if (!made) return fmt::print("{}\n", made.error().message()), -1;
    PcMachine& machine = **made;
    machine.start();
    std::atomic<bool> quit{false}, finished{false};
    // Asks for a move at a moment that is random to the guest too.
    std::uint32_t seed = std::uint32_t(random());
    std::thread clock([&] {
        std::mt19937 mine(seed);
        while (!quit) {
            std::this_thread::sleep_for(std::chrono::microseconds(mine() % 15000));
            std::atomic<bool> done{false};
            host.loop->post([&] {
                if (status == -2) {
                    std::string next = names[random() % names.size()];
                    std::unique_ptr<Engine> fresh = host.make(next).value();
                    auto changed = machine.change_engine(*fresh);
                    if (!changed) fmt::print("{}\n", changed.error().message()), status = -1;
                    ++pairs[now + " to " + next];
                    engine = std::move(fresh), now = next, ++moves;
                }
                done = true;
            });
            while (!done) std::this_thread::yield();
        }
        finished = true;
    });
    constexpr Nanoseconds longest_run = 60 * nanoseconds_per_second; // it takes one to five seconds
    while (status == -2) {
        host.loop->run_once(100'000'000);
        if (machine.clock().now() < longest_run) continue;
        fmt::print("the program hangs under {}\n", now);
        status = -1;
    }
    machine.stop();
    for (unsigned n = 0; n < a.cpus && status == -1; ++n) {
        x86::State s = machine.cpu_state(n);
        fmt::print("CPU {}: activity {}, event {} vector {:#x}, INIT {}, SIPI {}\n{}\n", n, unsigned(s.activity),
                   s.event_pending, s.event_vector, s.init_pending, s.sipi_pending, x86::describe(s));
    }
    quit = true;
    while (!finished) host.loop->run_once(1'000'000);
    clock.join();
    if (status != 1) fmt::print("seed {}, ended under {}:\n{}\n", a.seed, now, console.text);
    made->reset();
    return status;
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 3)
        return fmt::print("usage: move_host PROGRAM.elf MOVES [cpus=N] [seed=N] [engines=A,B] [only=CASE]\n"), 2;
    Arguments a = parse(argc, argv);
    std::vector<std::string> names;
    for (std::size_t from = 0; from <= a.engines.size();) {
        std::size_t to = std::min(a.engines.find(',', from), a.engines.size());
        names.push_back(a.engines.substr(from, to - from));
        from = to + 1;
    }
    Host host;
    for (std::string const& name : names)
        if (auto engine = host.make(name); !engine) return fmt::print("skipped: {}\n", engine.error().message()), 77;
    std::mt19937 random(a.seed);
    unsigned moves = 0, runs = 0;
    std::map<std::string, unsigned> pairs;
    while (moves < a.moves || pairs.size() < names.size() * names.size()) {
        ++runs;
        if (int status = run(host, a, names, random, moves, pairs); status != 1)
            return fmt::print("run {} ended with {} after {} moves\n", runs, status, moves), 1;
    }
    fmt::print("{} moves in {} runs:", moves, runs);
    for (auto const& [pair, count] : pairs) fmt::print(" {} {},", pair, count);
    fmt::print("\n");
    return 0;
}
