// SystemMachine: the system half of a vCPU on fakes: state, MMU, 1 MiB of RAM and a bus a test looks into, no engine.
// Descriptor tables and stacks lie at fixed places; paging maps linear to the same physical addresses.
#pragma once
#include "tests/support/fake_cpu_bus.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/exceptions.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/segments.h"
#include "vmm/tcg/guest/x86/system.h"

#include <cstring>
#include <memory>

namespace vmm::test {

struct SystemMachine {
    static constexpr std::uint64_t ram_bytes = 1u << 20, gdt = 0x1000, idt = 0x2000, tss = 0x3000, other_tss = 0x3800,
                                   ldt = 0x3c00, pml4 = 0x4000, pdpt = 0x5000, pd = 0x6000, stack_top = 0x20000,
                                   inner_stack_top = 0x30000, code = 0x40000;
    // Selectors of the GDT that every mode gets.
    static constexpr std::uint16_t kernel_code = 0x08, kernel_data = 0x10, user_code = 0x1b, user_data = 0x23,
                                   tss_selector = 0x28, free_slot = 0x38, long_code = 0x48;

    explicit SystemMachine(char const* model_name = "max") {
        ram = RamBlock::create("ram", ram_bytes).value();
        space.map({.name = "ram", .range = AddressRange::of(0, ram_bytes), .backing = Backing::of_ram(*ram)});
        std::vector<std::string> warnings;
        model = x86::make_cpu_model(model_name, x86::tcg_features(), warnings).value();
        context->model = &model;
        context->bus = &bus;
        context->state = x86::reset_state(0, true);
        mmu = std::make_unique<tcg::x86::Mmu>(*context, bus, model, lock);
        context->mmu = mmu.get();
        context->engine.bank = &no_translations;
        context->engine.memory = &tcg::x86::Mmu::operations();
        tcg::x86::state_replaced(*context);
    }

    x86::State& state() { return context->state; }
    template <class T> void put(std::uint64_t address, T v) { std::memcpy(ram->host() + address, &v, sizeof v); }
    template <class T> T get(std::uint64_t address) const {
        T v;
        std::memcpy(&v, ram->host() + address, sizeof v);
        return v;
    }
    // The bytes of a code or data descriptor: access as in byte 5, flags its nibble G D L AVL.
    static std::uint64_t descriptor(std::uint32_t base, std::uint32_t limit, std::uint8_t access, std::uint8_t flags) {
        return (limit & 0xffff) | std::uint64_t(base & 0xffffff) << 16 | std::uint64_t(access) << 40 |
               std::uint64_t(limit >> 16 & 15) << 48 | std::uint64_t(flags) << 52 | std::uint64_t(base >> 24) << 56;
    }
    static std::uint64_t gate(std::uint16_t selector, std::uint32_t offset, std::uint8_t access,
                              std::uint8_t parameters = 0) {
        return (offset & 0xffff) | std::uint64_t(selector) << 16 | std::uint64_t(parameters) << 32 |
               std::uint64_t(access) << 40 | std::uint64_t(offset >> 16) << 48;
    }
    void put_descriptor(std::uint16_t selector, std::uint64_t d) { put(gdt + (selector & ~7u), d); }
    void put_gate(unsigned vector, std::uint16_t selector, std::uint32_t offset, std::uint8_t access) {
        put(idt + vector * 8, gate(selector, offset, access));
    }
    void put_gate64(unsigned vector, std::uint16_t selector, std::uint64_t offset, std::uint8_t access,
                    std::uint8_t ist = 0) {
        put(idt + vector * 16, gate(selector, std::uint32_t(offset), access, ist));
        put(idt + vector * 16 + 8, offset >> 32);
    }

    void enter_real() { tcg::x86::state_replaced(*context); }
    // Flat 32-bit protected mode at `cpl`, no paging, with a 32-bit TSS whose ring 0 stack is at inner_stack_top.
    void enter_protected(unsigned cpl = 0) {
        put_tables();
        put(tss + 4, std::uint32_t(inner_stack_top));
        put(tss + 8, kernel_data);
        x86::State& s = state();
        s.cr0 |= x86::cr0::pe;
        load_tables();
        s.seg[x86::tr] = {.base = tss, .limit = 0x67, .attributes = 0x8b, .selector = tss_selector};
        load_flat(cpl, cpl ? user_code : kernel_code, 0xc09b);
    }
    // 64-bit mode at `cpl` with the first megabyte mapped to itself.
    void enter_long(unsigned cpl = 0) {
        put_tables();
        put(tss + 4, std::uint64_t(inner_stack_top));
        put(pml4, pdpt | 7);
        put(pdpt, pd | 7);
        put(pd, std::uint64_t(0x87));
        x86::State& s = state();
        s.cr0 |= x86::cr0::pe | x86::cr0::pg;
        s.cr3 = pml4;
        s.cr4 |= x86::cr4::pae;
        s.efer |= x86::efer::lme | x86::efer::lma;
        load_tables();
        s.seg[x86::tr] = {.base = tss, .limit = 0x67, .attributes = 0x8b, .selector = tss_selector};
        load_flat(cpl, std::uint16_t(long_code | cpl), 0xa09b);
    }

    // Records a fault as an instruction at `rip` would and delivers it.
    void fault(std::uint8_t vector) { context->raise(vector), tcg::x86::deliver(*context); }
    void fault(std::uint8_t vector, std::uint32_t error) { context->raise(vector, error), tcg::x86::deliver(*context); }
    // The recorded fault of a helper that was called, which is cleared: its vector, or -1. Error code in last_error.
    int take_fault() {
        if (!context->faulted()) return -1;
        context->engine.fault_pending = 0;
        last_error = context->fault.has_error ? context->fault.error : 0;
        return context->fault.vector;
    }
    std::uint32_t stack32(unsigned index) { return get<std::uint32_t>(state().gpr[x86::rsp] + 4 * index); }
    std::uint64_t stack64(unsigned index) { return get<std::uint64_t>(state().gpr[x86::rsp] + 8 * index); }

    AddressSpace space{"memory", ~std::uint64_t(0)};
    std::unique_ptr<RamBlock> ram;
    FakeCpuBus bus{space};
    x86::CpuModel model;
    std::mutex lock;
    tcg::TlbBank no_translations;
    std::unique_ptr<tcg::x86::X86Context> context = std::make_unique<tcg::x86::X86Context>();
    std::unique_ptr<tcg::x86::Mmu> mmu;
    std::uint32_t last_error = 0;

private:
    void put_tables() {
        put_descriptor(kernel_code, descriptor(0, 0xfffff, 0x9a, 0xc));
        put_descriptor(kernel_data, descriptor(0, 0xfffff, 0x92, 0xc));
        put_descriptor(user_code, descriptor(0, 0xfffff, 0xfa, 0xc));
        put_descriptor(user_data, descriptor(0, 0xfffff, 0xf2, 0xc));
        put_descriptor(tss_selector, descriptor(tss, 0x67, 0x8b, 0));
        put_descriptor(long_code, descriptor(0, 0xfffff, 0x9a, 0xa));
    }
    void load_tables() {
        state().gdtr = {gdt, 0xff};
        state().idtr = {idt, 0xfff};
    }
    void load_flat(unsigned cpl, std::uint16_t cs_selector, std::uint16_t cs_attributes) {
        x86::State& s = state();
        auto const dpl = std::uint16_t(cpl << 5);
        s.seg[x86::cs] = {
            .base = 0, .limit = ~0u, .attributes = std::uint16_t(cs_attributes | dpl), .selector = cs_selector};
        for (auto which : {x86::ss, x86::ds, x86::es})
            s.seg[which] = {.base = 0,
                            .limit = ~0u,
                            .attributes = std::uint16_t(0xc093 | dpl),
                            .selector = cpl ? user_data : kernel_data};
        s.gpr[x86::rsp] = stack_top;
        s.rip = code;
        tcg::x86::state_replaced(*context);
    }
};

} // namespace vmm::test
