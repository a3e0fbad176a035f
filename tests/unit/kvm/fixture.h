// A KvmMachine on a FakeKvm with a megabyte of RAM, and its vCPU.
#pragma once
#include "fake_kvm.h"
#include "tests/support/fake_cpu_bus.h"
#include "vmm/kvm/kvm_vcpu.h"

#include <gtest/gtest.h>

namespace vmm::kvm {

struct KvmFixture : testing::Test {
    FakeKvm fake;
    Log log{"test"};
    HostFacts host{.virtualization = true, .user = "ann", .group = "kvm"};
    std::unique_ptr<RamBlock> ram = RamBlock::create("pc.ram", 1 << 20).value();
    AddressSpace memory{"memory", ~std::uint64_t(0)};
    test::FakeCpuBus bus{memory};
    x86::CpuModel model;
    std::unique_ptr<KvmMachine> machine;
    std::unique_ptr<KvmVcpu> vcpu;

    KvmFixture() {
        memory.map({.name = "ram", .range = AddressRange::of(0, ram->size()), .backing = Backing::of_ram(*ram)});
        std::vector<std::string> warnings;
        model = x86::make_cpu_model("x86-64-v2", x86::host_features(), warnings).value();
    }
    ~KvmFixture() override {
        vcpu.reset();
        machine.reset();
    }
    Result<void> start(KvmOptions options = {}) {
        machine = TRY(KvmMachine::create(fake, log, host, options));
        TRY(machine->use_memory(memory));
        vcpu = TRY(KvmVcpu::create({.machine = *machine, .bus = bus, .model = model, .cpuid = {}, .bsp = true}));
        return {};
    }
};

} // namespace vmm::kvm
