// Port writes a second: through KvmVcpu, the device lock and the I/O address space, against a bare KVM_RUN loop. The
// two take turns, so that a busy host troubles both alike. Prints the rates and their ratio.
#include "tests/unit/kvm/real_machine.h"
#include "vmm/base/thread_annotations.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

using namespace vmm;

namespace {

struct Loop : Xbyak::CodeGenerator {
    Loop() { mov(dx, 0x80), L("again"), out_(dx, al), jmp("again"); }
};
struct Sink final : IoHandler {
    std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
    void write(std::uint64_t, unsigned, std::uint64_t) override { ++writes; }
    std::uint64_t writes = 0;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Writes a second by a bare loop on the vCPU's own descriptor; `run` is its shared page.
double bare(RealMachine& m, kvm_run volatile* run, unsigned n) {
    run->immediate_exit = 0; // left by request_exit()
    double start = now();
    for (unsigned i = 0; i < n; ++i)
        if (m.api->ioctl(m.kvm->fd(), KVM_RUN, std::uintptr_t(0)) != 0 || run->exit_reason != KVM_EXIT_IO) std::abort();
    return n / (now() - start);
}

} // namespace

int main() {
    RealMachine m;
    if (std::string why = m.make_kvm(); !why.empty()) return fmt::print("skipped: {}\n", why), 77;
    AddressSpace io("I/O", 0xffff);
    Sink sink;
    io.map({.name = "post", .range = AddressRange::of(0x80, 1), .backing = Backing::of_io(sink, {.max_impl = 1})});
    Mutex lock;
    unsigned stop_at = 0, seen = 0;
    m.bus.on_port_write = [&](std::uint16_t port, unsigned size, std::uint32_t value) {
        {
            MutexLock guard(lock);
            io.write(port, size, value);
        }
        m.bus.port_writes.clear();
        if (++seen == stop_at) m.kvm->request_exit();
    };
    int failure = 0;
    auto* run = static_cast<kvm_run*>(m.api->map(m.kvm->fd(), m.machine->run_size(), 0, failure));
    if (!run) return fmt::print("cannot map the vCPU\n"), 1;
    m.load(Loop());
    m.kvm->set_state(m.flat64());
    constexpr unsigned per_turn = 20'000, turns = 15;
    std::vector<double> ours, theirs, ratios;
    for (unsigned turn = 0; turn < turns; ++turn) {
        seen = 0, stop_at = per_turn;
        double start = now();
        m.kvm->run(0);
        ours.push_back(per_turn / (now() - start));
        m.kvm->set_state(m.flat64());
        theirs.push_back(bare(m, run, per_turn));
        m.kvm->set_state(m.flat64());
        ratios.push_back(ours.back() / theirs.back());
    }
    auto median = [](std::vector<double> v) { return std::ranges::sort(v), v[v.size() / 2]; };
    fmt::print("port writes/s: vmm {:.0f}, bare loop {:.0f}, ratio {:.3f} (median of {} turns)\n", median(ours),
               median(theirs), median(ratios), turns);
    return 0;
}
