// A machine's interrupt hardware with fakes for the CPUs: PIC pair, I/O APIC, local APICs on one bus, wired as on a PC.
#pragma once
#include "devices/irq/i8259.h"
#include "devices/irq/io_apic.h"
#include "devices/irq/local_apic.h"
#include "tests/support/fake_clock.h"

#include <memory>
#include <string>
#include <vector>

namespace vmm::test {

// Counts what it was told.
struct FakeCpuSignals final : dev::CpuSignals {
    unsigned kicks = 0, nmis = 0, smis = 0, inits = 0;
    std::vector<std::uint8_t> sipis;
    void interrupt_changed() override { ++kicks; }
    void nmi() override { ++nmis; }
    void smi() override { ++smis; }
    void init() override { ++inits; }
    void sipi(std::uint8_t vector) override { sipis.push_back(vector); }
};

// A TSC of 2 GHz that started with the virtual clock.
struct FakeTsc final : dev::TscSource {
    FakeClock& clock;
    explicit FakeTsc(FakeClock& c) : clock(c) {}
    std::uint64_t tsc_now() const override { return std::uint64_t(clock.now()) * 2; }
    std::uint64_t tsc_hz() const override { return 2'000'000'000; }
    Nanoseconds when(std::uint64_t tsc) const override {
        return tsc > std::uint64_t(INT64_MAX) ? TimerQueue::never : Nanoseconds(tsc / 2 + tsc % 2);
    }
};

struct ApicRig {
    FakeClock clock;
    TimerQueue timers{clock};
    Log log{"test"};
    dev::ApicBus bus{log};
    dev::I8259Pair pic{{bus.lint(0), log}};
    dev::IoApic io{{bus, log}, {}};
    FakeTsc tsc{clock};
    std::vector<std::unique_ptr<FakeCpuSignals>> cpus;
    std::vector<std::unique_ptr<dev::LocalApic>> apics;

    explicit ApicRig(std::vector<std::uint32_t> ids = {0}) {
        bus.attach(io);
        for (std::uint32_t id : ids) {
            cpus.push_back(std::make_unique<FakeCpuSignals>());
            apics.push_back(
                std::make_unique<dev::LocalApic>(dev::LocalApic::Needs{*cpus.back(), bus, pic, timers, tsc, log},
                                                 dev::LocalApic::Config{.id = id, .bootstrap = apics.empty()}));
            bus.attach(*apics.back());
        }
    }
    dev::LocalApic& apic(unsigned i = 0) { return *apics[i]; }
    void advance(Nanoseconds by) { clock.advance(timers, by); }
    // Software-enables every local APIC, as an operating system does.
    void enable_all() {
        for (auto& a : apics) a->write(0xf0, 4, 0x1ff);
    }
    // A redirection entry, high half first as drivers do.
    void redirect(unsigned pin, std::uint64_t entry) {
        io.write(0, 4, 0x10 + 2 * pin + 1), io.write(0x10, 4, entry >> 32);
        io.write(0, 4, 0x10 + 2 * pin), io.write(0x10, 4, std::uint32_t(entry));
    }
    std::uint64_t redirection(unsigned pin) {
        io.write(0, 4, 0x10 + 2 * pin);
        std::uint64_t low = io.read(0x10, 4);
        io.write(0, 4, 0x10 + 2 * pin + 1);
        return low | io.read(0x10, 4) << 32;
    }
    // Both 8259s as PC operating systems set them up: vectors `base` and base + 8, everything unmasked.
    void init_pic(std::uint8_t base = 0x30, std::uint8_t icw4 = 1) {
        auto setup = [&](IoHandler& chip, std::uint8_t vectors, std::uint8_t icw3) {
            chip.write(0, 1, 0x11), chip.write(1, 1, vectors), chip.write(1, 1, icw3), chip.write(1, 1, icw4);
            chip.write(1, 1, 0);
        };
        setup(pic.master_ports(), base, 4);
        setup(pic.slave_ports(), std::uint8_t(base + 8), 2);
    }
};

} // namespace vmm::test
