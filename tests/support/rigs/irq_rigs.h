// Rigs of the interrupt controllers, for the conformance suite and the fuzz targets.
#pragma once
#include "tests/support/apic_rig.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fake_irq_line.h"

namespace vmm::test {

struct PicConformanceRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine intr;
    Log log{"test"};
    dev::I8259Pair pic{{intr, log}};
    static constexpr bool keeps_state_over_reset = true; // the levels of its inputs, which stimulate() changes
    dev::Resettable& resettable() { return pic; }
    dev::Snapshottable& snapshottable() { return pic; }
    std::vector<IoWindow> windows() {
        return {{&pic.master_ports(), 2, 1}, {&pic.slave_ports(), 2, 1}, {&pic.elcr_ports(), 2, 1}};
    }
    void stimulate(std::uint64_t r) {
        pic.input(r & 15).set(r >> 4 & 1);
        if (r >> 5 & 1) pic.acknowledge();
    }
};
struct IoApicConformanceRig : ApicRig {
    static constexpr bool keeps_state_over_reset = true;
    dev::Resettable& resettable() { return io; }
    dev::Snapshottable& snapshottable() { return io; }
    std::vector<IoWindow> windows() { return {{&io, 0x44, 4}}; }
    void stimulate(std::uint64_t r) { io.input(r % 24).set(r >> 8 & 1); }
};
struct LocalApicConformanceRig : ApicRig {
    static constexpr bool keeps_state_over_reset = true;
    dev::Resettable& resettable() { return apic(); }
    dev::Snapshottable& snapshottable() { return apic(); }
    std::vector<IoWindow> windows() { return {{&apic(), 0x400, 8}}; }
    void stimulate(std::uint64_t r) {
        switch (r & 7) {
        case 0: bus.lint(r >> 3 & 1).set(r >> 4 & 1); break;
        case 1: apic().receive({.vector = std::uint8_t(r >> 8), .level_triggered = (r >> 3 & 1) != 0}); break;
        case 2:
            if (apic().interrupt_pending()) apic().acknowledge();
            break;
        case 3: static_cast<void>(apic().write_msr(0x6e0, std::uint64_t(clock.now()) * 2 + (r >> 44))); break;
        case 4: static_cast<void>(apic().write_msr(0x1b, 0xfee00000 | (r >> 8 & 0xc00))); break;
        case 5: static_cast<void>(apic().write_msr(0x800 | (r >> 8 & 0x3f), r >> 32)); break;
        case 6: apic().write(0xf0, 4, 0x1ff); break;
        default: apic().set_cr8(r >> 8 & 15); break;
        }
    }
};
} // namespace vmm::test
