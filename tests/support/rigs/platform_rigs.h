// Rigs (see device_conformance.h) for devices/platform.
#pragma once
#include "devices/platform/acpi_pm.h"
#include "devices/platform/debug_ports.h"
#include "devices/platform/fw_cfg.h"
#include "devices/platform/pc_testdev.h"
#include "devices/platform/port92.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fake_dma.h"
#include "tests/support/fake_irq_line.h"

namespace vmm::test {

struct FakePower final : dev::PowerControl {
    unsigned offs = 0;
    void power_off() override { ++offs; }
};

struct Port92Rig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine a20, reset;
    dev::Port92 port{{a20, reset}};
    dev::Resettable& resettable() { return port; }
    dev::Snapshottable& snapshottable() { return port; }
    std::vector<IoWindow> windows() { return {{&port, 1, 1}}; }
};

struct PostPortRig {
    FakeClock clock;
    TimerQueue timers{clock};
    dev::PostPort port;
    dev::Resettable& resettable() { return port; }
    dev::Snapshottable& snapshottable() { return port; }
    std::vector<IoWindow> windows() { return {{&port, 1, 1}}; }
};

struct AcpiPmRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine sci;
    FakePower power;
    Log log{"test"};
    dev::AcpiPm pm{{sci, timers, power, log}};
    dev::Resettable& resettable() { return pm; }
    dev::Snapshottable& snapshottable() { return pm; }
    std::vector<IoWindow> windows() { return {{&pm.pm(), 64, 4}, {&pm.gpe(), 4, 1}, {&pm.smi(), 2, 1}}; }
    void stimulate(std::uint64_t) { pm.press_power_button(); }
};

struct PcTestdevRig {
    FakeClock clock;
    TimerQueue timers{clock};
    std::array<FakeIrqLine, dev::PcTestdev::irq_lines> lines;
    dev::PcTestdev device{[this] {
        std::vector<dev::IrqLine*> all;
        for (auto& line : lines) all.push_back(&line);
        return all;
    }()};
    dev::Resettable& resettable() { return device; }
    dev::Snapshottable& snapshottable() { return device; }
    std::vector<IoWindow> windows() {
        return {{&device.latch(), 4, 4},
                {&device.flush(), 4, 4},
                {&device.byte(), 1, 1},
                {&device.irqs(), dev::PcTestdev::irq_lines, 1},
                {&device.scratch(), dev::PcTestdev::scratch_size, 8}};
    }
};

struct FwCfgRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeDma memory{4096};
    Log log{"test"};
    dev::FwCfg cfg{{memory, log}};
    static constexpr bool keeps_state_over_reset = true; // what was written to files stays
    FwCfgRig() {
        cfg.add_file("etc/fixed", {1, 2, 3}).value();
        cfg.add_writable_file("etc/writable", {4, 5, 6, 7}, {}).value();
    }
    dev::Resettable& resettable() { return cfg; }
    dev::Snapshottable& snapshottable() { return cfg; }
    std::vector<IoWindow> windows() { return {{&cfg.ports(), 2, 2}, {&cfg.dma(), 8, 4}}; }
};

} // namespace vmm::test
