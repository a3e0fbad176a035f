// A few megabytes of RAM, a FakeCpuBus and a vCPU in flat 64-bit mode on any engine, running code made by Xbyak.
#pragma once
#include "tests/support/fake_cpu_bus.h"
#include "vmm/base/checked.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/tcg/engine/x86_vcpu.h"

#include <gtest/gtest.h>
#include <xbyak/xbyak.h>

#include <cstring>

namespace vmm {

inline constexpr std::uint64_t code_base = 0x10000, stack_top = 0x80000, data_base = 0x90000, idt_base = 0x8000,
                               gdt_base = 0x7000;

struct RealMachine {
    std::unique_ptr<kvm::KvmApi> api = kvm::make_system_kvm_api();
    Log log{"test"};
    std::unique_ptr<RamBlock> ram = RamBlock::create("pc.ram", 4 * MiB).value();
    AddressSpace memory{"memory", ~std::uint64_t(0)};
    test::FakeCpuBus bus{memory};
    x86::CpuModel model;
    std::unique_ptr<kvm::KvmMachine> machine;
    std::unique_ptr<kvm::KvmVcpu> kvm;
    tcg::Shared shared;
    std::unique_ptr<tcg::X86Vcpu> interp;

    RealMachine() {
        memory.map({.name = "ram", .range = AddressRange::of(0, ram->size()), .backing = Backing::of_ram(*ram)});
        // Identity pages for the first GiB: PML4 at 1000, PDPT at 2000, 2 MiB pages at 3000.
        put(0x1000, std::uint64_t(0x2003));
        put(0x2000, std::uint64_t(0x3003));
        for (std::uint64_t n = 0; n < 512; ++n) put(0x3000 + 8 * n, n << 21 | 0x83);
        put(gdt_base + 8, std::uint64_t(0x00af9b000000ffff));
        put(gdt_base + 16, std::uint64_t(0x00cf93000000ffff));
    }
    ~RealMachine() {
        kvm.reset();
        machine.reset();
    }
    template <class T> void put(GuestPhys a, T value) { std::memcpy(ram->host() + a, &value, sizeof value); }
    template <class T> T get(GuestPhys a) const {
        T value;
        std::memcpy(&value, ram->host() + a, sizeof value);
        return value;
    }
    void gate(unsigned vector, std::uint64_t handler) {
        put(idt_base + 16 * vector,
            (handler & 0xffff) | std::uint64_t(8) << 16 | std::uint64_t(0x8e00) << 32 | (handler >> 16 & 0xffff) << 48);
        put(idt_base + 16 * vector + 8, handler >> 32);
    }
    // "" or why KVM cannot be had.
    std::string make_kvm(kvm::KvmOptions options = {}) {
        auto made = kvm::KvmMachine::create(*api, log, kvm::look_at_host(), options);
        if (!made) return made.error().message();
        machine = std::move(*made);
        std::vector<std::string> warnings;
        model = x86::make_cpu_model("qemu64", machine->features(), warnings).value();
        EXPECT_TRUE(machine->use_memory(memory));
        auto cpu = kvm::KvmVcpu::create({.machine = *machine, .bus = bus, .model = model, .cpuid = {}, .bsp = true});
        EXPECT_TRUE(cpu) << cpu.error().message();
        kvm = std::move(*cpu);
        return "";
    }
    void make_interp() {
        std::vector<std::string> warnings;
        if (!machine) model = x86::make_cpu_model("qemu64", x86::tcg_features(), warnings).value();
        interp = std::make_unique<tcg::X86Vcpu>(tcg::X86Vcpu::Config{.bus = bus,
                                                                     .shared = shared,
                                                                     .log = log,
                                                                     .model = model,
                                                                     .backend = tcg::make_interpreter,
                                                                     .block_at_a_time = true});
    }
    void load(Xbyak::CodeGenerator const& code) {
        std::memcpy(ram->host() + code_base, code.getCode(), code.getSize());
    }
    x86::State flat64(std::uint64_t rip = code_base) const {
        x86::State s = x86::reset_state(model.signature(), true);
        s.cr0 = 0x80000031, s.cr3 = 0x1000, s.cr4 = 0x620, s.efer = 0x500;
        s.seg[x86::cs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xa09b, .selector = 8};
        for (auto seg : {x86::ds, x86::es, x86::ss, x86::fs, x86::gs})
            s.seg[seg] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc093, .selector = 16};
        s.gdtr = {gdt_base, 23}, s.idtr = {idt_base, 0xfff};
        s.gpr[x86::rsp] = stack_top;
        s.rip = rip;
        return s;
    }
};

} // namespace vmm
