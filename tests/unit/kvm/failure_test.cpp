// Every call to KVM fails once: one message that names the call, nothing leaked, no abort.
#include "fixture.h"
#include "request_names.h"
#include "vmm/kvm/kvm_irq.h"

#include <algorithm>
#include <filesystem>

namespace vmm::kvm {

namespace {

unsigned open_fds() {
    unsigned n = 0;
    for ([[maybe_unused]] auto const& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++n;
    return n;
}

int port_exit(kvm_run& run) {
    run.exit_reason = KVM_EXIT_IO;
    run.io.direction = KVM_EXIT_IO_OUT, run.io.port = 0x80, run.io.size = 1, run.io.count = 1,
    run.io.data_offset = 4096;
    return 0;
}
int mmio_exit(kvm_run& run) {
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.phys_addr = 0x8000'0000, run.mmio.len = 4, run.mmio.is_write = 1;
    return 0;
}
int ready_exit(kvm_run& run) {
    run.exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
    run.ready_for_interrupt_injection = run.if_flag = 1;
    return 0;
}

// One life of a machine with a vCPU, using every kind of call. The error, or "" when all went well.
struct Life {
    FakeKvm fake;
    Log log{"test"};
    std::unique_ptr<RamBlock> ram = RamBlock::create("pc.ram", 1 << 20).value();
    AddressSpace memory{"memory", ~std::uint64_t(0)};
    test::FakeCpuBus bus{memory};
    std::unique_ptr<KvmMachine> machine;
    std::unique_ptr<KvmVcpu> vcpu;
    x86::CpuModel model;
    KvmOptions options;

    explicit Life(KvmOptions o) : options(o) {
        std::vector<std::string> warnings;
        model = x86::make_cpu_model("x86-64-v2", x86::host_features(), warnings).value();
        memory.map({.name = "ram", .range = AddressRange::of(0, ram->size()), .backing = Backing::of_ram(*ram)});
    }
    ~Life() {
        vcpu.reset();
        machine.reset();
    }
    Result<void> set_up() {
        machine = TRY(KvmMachine::create(fake, log, {.virtualization = true, .user = {}, .group = {}}, options));
        TRY(machine->use_memory(memory));
        vcpu = TRY(KvmVcpu::create({.machine = *machine, .bus = bus, .model = model, .cpuid = {}, .bsp = true}));
        return {};
    }
    Result<void> use_kernel_apic() {
        fake.on_get_lapic = [](kvm_lapic_state& page) { page.regs[0x380] = 1; }; // a one-shot timer that is over
        TRY(vcpu->settle());
        auto apic = TRY(vcpu->kernel_apic());
        return vcpu->set_kernel_apic(apic);
    }
    Result<void> plumb() {
        KvmIrqs irqs(*machine);
        if (options.irqchip != KernelIrqchip::off) {
            TRY(irqs.set_pc_routes());
            TRY(irqs.route_msi(24, {0xfee00000, 0x41}));
            TRY(irqs.set_line(4, true));
            TRY(irqs.signal_msi({0xfee00000, 0x41}));
            TRY(irqs.attach_irqfd(0, 24, 1));
            TRY(irqs.detach_irqfd(0, 24));
        }
        if (options.irqchip != KernelIrqchip::off) TRY(use_kernel_apic());
        std::uint64_t clock = TRY(machine->kvmclock());
        TRY(machine->set_kvmclock(clock));
        auto stamp = TRY(vcpu->time_stamp());
        TRY(vcpu->set_time_stamp(stamp.counter));
        TRY(vcpu->set_time_stamp_offset(stamp.offset.value_or(0)));
        fake.nested_state.assign(1024, 0xff);
        auto own = TRY(vcpu->own_state());
        TRY(vcpu->set_own_state(own));
        fake.nested_state.clear();
        TRY(irqs.attach_ioeventfd(0, {.address = 0xc000, .size = 2, .port = true}));
        TRY(irqs.detach_ioeventfd(0, {.address = 0xc000, .size = 2, .port = true}));
        TRY(machine->add_coalesced_zone(0xa0000, 0x20000, false));
        TRY(vcpu->set_guest_debug({.single_step = true, .hardware = {{.address = 0x1000, .type = 1, .size = 4}}}));
        ram->start_dirty_log();
        memory.notify_dirty_log_changed();
        TRY(machine->sync_dirty_log());
        memory.map({.name = "rom",
                    .range = AddressRange::of(0xc0000, 0x10000),
                    .backing = Backing::of_ram(*ram, 0xc0000),
                    .priority = 1,
                    .use = MapFor::reads});
        return {};
    }
    std::string live() {
        if (auto done = set_up(); !done) return done.error().message();
        if (auto done = plumb(); !done) return done.error().message();
        fake.script = {port_exit, mmio_exit, ready_exit, port_exit};
        bus.pending = true;
        vcpu->signal(CpuSignal::nmi, 0);
        vcpu->signal(CpuSignal::smi, 0);
        bus.on_port_write = [this](auto...) {
            if (fake.script.empty()) vcpu->request_exit();
        };
        ExitReason reason = vcpu->run(0);
        if (reason == ExitReason::internal_error) return vcpu->error_text();
        EXPECT_EQ(reason, ExitReason::requested);
        vcpu->signal(CpuSignal::init, 0);
        vcpu->request_exit();
        vcpu->run(0);
        fake.script = {[](kvm_run& run) { return run.exit_reason = KVM_EXIT_HLT, 0; }};
        (void)vcpu->translate(0x1000);
        (void)vcpu->state();
        return vcpu->error_text();
    }
};

// Does without what only some KVM has.
struct PlainLife : Life {
    explicit PlainLife(KvmOptions o) : Life(o) { fake.capabilities[KVM_CAP_TSC_CONTROL] = 0; }
};

template <class Life> void every_call_fails_once(KvmOptions options) {
    unsigned total;
    {
        Life life(options);
        ASSERT_EQ(life.live(), "");
        total = life.fake.calls();
    }
    unsigned before = open_fds(), told = 0;
    for (unsigned n = 1; n <= total; ++n) {
        {
            Life life(options);
            life.fake.fail_call(n, ENOMEM);
            std::string text = life.live();
            unsigned long request = life.fake.failed_request();
            // Capability questions answered "no" and MSRs are not failures; everything else must be told.
            bool tolerated = request == KVM_CHECK_EXTENSION || request == KVM_TRANSLATE;
            EXPECT_TRUE(tolerated || !text.empty())
                << "call " << n << " (request " << std::hex << request << ") failed silently";
            if (!text.empty()) {
                ++told;
                EXPECT_TRUE(text.find("KVM") != std::string::npos || text.find("mapping") != std::string::npos ||
                            text.find("kernel-irqchip") != std::string::npos ||
                            text.find("dirty-ring") != std::string::npos)
                    << text;
                if (life.vcpu && !life.vcpu->error_text().empty()) {
                    EXPECT_EQ(life.vcpu->run(0), ExitReason::internal_error) << "a broken vCPU runs on";
                }
            }
            life.vcpu.reset();
            life.machine.reset();
            EXPECT_EQ(life.fake.live_maps, 0u) << "call " << n;
        }
        EXPECT_EQ(open_fds(), before) << "call " << n;
    }
    EXPECT_GT(told, 30u);
}

} // namespace

TEST(KvmFailure, each_call_with_userspace_controllers) { every_call_fails_once<Life>({}); }
TEST(KvmFailure, each_call_with_kernel_controllers) { every_call_fails_once<Life>({.irqchip = KernelIrqchip::on}); }
TEST(KvmFailure, each_call_with_split_controllers) { every_call_fails_once<Life>({.irqchip = KernelIrqchip::split}); }
TEST(KvmFailure, each_call_with_a_dirty_ring) { every_call_fails_once<Life>({.dirty_ring_entries = 1024}); }
TEST(KvmFailure, each_call_of_a_plain_kvm) { every_call_fails_once<PlainLife>({.irqchip = KernelIrqchip::on}); }

// A request that is new in the source has to be in the table, and one that is there has to be in a life.
TEST(KvmFailure, no_request_of_the_source_is_missing_from_the_calls_that_fail) {
    std::set<unsigned long> seen;
    auto live = [&](auto life) {
        EXPECT_EQ(life->live(), "");
        seen.insert(life->fake.requests.begin(), life->fake.requests.end());
    };
    for (KernelIrqchip irqchip : {KernelIrqchip::off, KernelIrqchip::split, KernelIrqchip::on})
        live(std::make_unique<Life>(KvmOptions{.irqchip = irqchip}));
    live(std::make_unique<Life>(KvmOptions{.dirty_ring_entries = 1024}));
    live(std::make_unique<PlainLife>(KvmOptions{}));
    unsigned found = 0;
    for (std::string const& name : requests_in_source(VMM_SOURCE_DIR "/vmm/kvm")) {
        ++found;
        auto row = std::ranges::find(request_names, name, &RequestName::name);
        if (row == std::end(request_names))
            ADD_FAILURE() << name << " is not in request_names (request_names.h)";
        else
            EXPECT_TRUE(seen.contains(row->request)) << name << " is in no life of this test";
    }
    EXPECT_GE(found, 50u);
}

} // namespace vmm::kvm
