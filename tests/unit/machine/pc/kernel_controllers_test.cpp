// The engine's clocks and interrupt controllers change hands while each call to KVM fails once: one message that names
// the call, nothing leaked, no abort.
#include "tests/support/apic_rig.h"
#include "tests/support/fake_cpu_bus.h"
#include "tests/unit/kvm/fake_kvm.h"
#include "tests/unit/kvm/request_names.h"
#include "vmm/machine/pc/engines.h"
#include "vmm/machine/pc/kernel_controllers.h"
#include "vmm/machine/pc/pc_cpu_bus.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

namespace vmm {

namespace {

unsigned open_fds() {
    unsigned n = 0;
    for ([[maybe_unused]] auto const& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++n;
    return n;
}

// A board's controllers with a KVM engine behind them, from birth through two stops.
struct Life {
    kvm::FakeKvm fake;
    Log log{"test"};
    Mutex device_lock;
    std::unique_ptr<RamBlock> ram = RamBlock::create("pc.ram", 1 << 20).value();
    AddressSpace memory{"memory", ~std::uint64_t(0)};
    test::FakeCpuBus bus{memory};
    test::ApicRig rig;
    PcTsc tsc{rig.clock};
    GuestTime time{tsc, rig.clock};
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Vcpu> vcpu;

    Life() { memory.map({.name = "ram", .range = AddressRange::of(0, ram->size()), .backing = Backing::of_ram(*ram)}); }
    ~Life() { end(); }
    void end() {
        vcpu.reset();
        if (engine) engine->release_memory();
        engine.reset();
    }

    Result<void> make(kvm::KernelIrqchip irqchip) {
        std::vector<std::string> warnings;
        engine =
            TRY(make_kvm_engine(fake, {.virtualization = true, .user = {}, .group = {}}, {.irqchip = irqchip}, log));
        auto model = TRY(x86::make_cpu_model("qemu64", engine->features(), warnings));
        vcpu = TRY(engine->make_vcpu(bus, model, {.bsp = true}));
        KernelControllers::Board board{.device_lock = device_lock,
                                       .bus = rig.bus,
                                       .pic = rig.pic,
                                       .io_apic = rig.io,
                                       .apics = {&rig.apic()},
                                       .timers = rig.timers,
                                       .tsc = tsc,
                                       .io_apic_base = 0xfec00000};
        engine->controllers()->set_board(std::move(board));
        return {};
    }
    Result<void> start() {
        TRY(engine->start_time(time));
        return engine->controllers()->take_over();
    }
    Result<void> stop() {
        TRY(engine->controllers()->settle());
        TRY(engine->stop_time(time));
        return engine->controllers()->hand_back();
    }
    Result<void> live(kvm::KernelIrqchip irqchip) {
        TRY(make(irqchip));
        rig.enable_all();
        rig.init_pic();
        rig.redirect(11, 0x8054);
        rig.apic().write(0x320, 4, 0x53);
        TRY(start());
        KernelControllers& chips = *engine->controllers();
        chips.drive(11, true), chips.drive(11, false);
        chips.send(0xfee00000, 0x41);
        chips.redirections_changed();
        TRY(stop());
        TRY(start());
        return stop();
    }
};

void every_call_fails_once(kvm::KernelIrqchip irqchip) {
    unsigned total;
    {
        Life life;
        auto done = life.live(irqchip);
        ASSERT_TRUE(done) << done.error().message();
        total = life.fake.calls();
    }
    unsigned before = open_fds(), told = 0;
    for (unsigned n = 1; n <= total; ++n) {
        {
            Life life;
            life.fake.fail_call(n, ENOMEM);
            testing::internal::CaptureStderr();
            auto done = life.live(irqchip);
            std::string text = testing::internal::GetCapturedStderr() + (done ? "" : done.error().message());
            unsigned long request = life.fake.failed_request();
            EXPECT_TRUE(request == KVM_CHECK_EXTENSION || text.find("KVM") != std::string::npos ||
                        text.find("mapping") != std::string::npos || text.find("kernel-irqchip") != std::string::npos)
                << "call " << n << " (request " << std::hex << request << "): " << text;
            if (!text.empty()) ++told;
            life.end();
            EXPECT_EQ(life.fake.live_maps, 0u) << "call " << n;
        }
        EXPECT_EQ(open_fds(), before) << "call " << n;
    }
    EXPECT_GT(told, 60u);
}

} // namespace

TEST(KernelControllers, each_failing_call_of_the_kernels_chips_is_told) {
    every_call_fails_once(kvm::KernelIrqchip::on);
}
TEST(KernelControllers, each_failing_call_with_split_chips_is_told) {
    every_call_fails_once(kvm::KernelIrqchip::split);
}

TEST(KernelControllers, no_request_of_the_source_is_missing_from_the_calls_that_fail) {
    std::set<unsigned long> seen;
    for (kvm::KernelIrqchip irqchip : {kvm::KernelIrqchip::split, kvm::KernelIrqchip::on}) {
        Life life;
        ASSERT_TRUE(life.live(irqchip));
        seen.insert(life.fake.requests.begin(), life.fake.requests.end());
    }
    auto names = kvm::requests_in_source(VMM_SOURCE_DIR "/vmm/machine");
    EXPECT_GE(names.size(), 2u);
    for (std::string const& name : names) {
        auto row = std::ranges::find(kvm::request_names, name, &kvm::RequestName::name);
        if (row == std::end(kvm::request_names))
            ADD_FAILURE() << name << " is not in request_names (request_names.h)";
        else
            EXPECT_TRUE(seen.contains(row->request)) << name << " is in no life of this test";
    }
}

} // namespace vmm
