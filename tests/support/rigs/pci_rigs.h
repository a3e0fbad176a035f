// Rigs (see device_conformance.h) for devices/pci: configuration spaces behind the configuration ports.
#pragma once
#include "devices/pci/config_ports.h"
#include "devices/pci/i440fx.h"
#include "devices/pci/msi.h"
#include "devices/pci/piix3.h"
#include "devices/pci/piix4_pm.h"
#include "tests/support/composite.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fake_irq_line.h"
#include "tests/support/rigs/platform_rigs.h"

namespace vmm::test {

// A function's configuration space as one window.
struct ConfigWindow final : IoHandler {
    explicit ConfigWindow(dev::PciFunction& to) : function(to) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override { return function.read(unsigned(offset), size); }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
        function.write(unsigned(offset), size, std::uint32_t(value));
    }
    dev::PciFunction& function;
};

// The address spaces and the south bridge that every PCI rig needs.
struct PciBase {
    FakeClock clock;
    TimerQueue timers{clock};
    AddressSpace memory{"memory", UINT64_MAX}, io{"I/O", 0xffff};
    std::array<FakeIrqLine, 16> irqs;
    FakeIrqLine machine_reset;
    dev::Piix3 isa{[this] {
        dev::Piix3::Needs needs{.reset = &machine_reset};
        for (unsigned i = 0; i < 16; ++i) needs.irqs[i] = &irqs[i];
        return needs;
    }()};
    dev::PciBus bus{{memory, io, isa}};
};

struct I440fxRig : PciBase {
    std::unique_ptr<RamBlock> ram = RamBlock::create("ram", 2 * MiB).value();
    std::unique_ptr<RamBlock> rom = RamBlock::create("rom", 64 * KiB).value();
    static constexpr std::uint64_t MiB = 1024 * 1024, KiB = 1024;
    dev::I440fx bridge{{memory, *ram, rom.get()}};
    ConfigWindow config{bridge.function()};
    dev::Resettable& resettable() { return bridge; }
    dev::Snapshottable& snapshottable() { return bridge; }
    std::vector<IoWindow> windows() { return {{&config, 256, 4}}; }
};

struct Piix3Rig : PciBase {
    ConfigWindow config{isa.function()};
    dev::Resettable& resettable() { return isa; }
    dev::Snapshottable& snapshottable() { return isa; }
    std::vector<IoWindow> windows() { return {{&config, 256, 4}, {&isa.reset_control(), 1, 1}}; }
};

// The ports, with the south bridge's function behind them.
struct ConfigPortsRig : PciBase {
    dev::PciConfigPorts ports{{bus, isa.reset_control()}};
    CompositeResettable all_reset{{&ports, &isa}};
    CompositeSnapshottable all_saved{{&ports, &isa}};
    ConfigPortsRig() { bus.attach({0, 0}, isa.function()).value(); }
    dev::Resettable& resettable() { return all_reset; }
    dev::Snapshottable& snapshottable() { return all_saved; }
    std::vector<IoWindow> windows() { return {{&ports, 8, 4}}; }
};

struct Piix4PmRig : PciBase {
    FakeIrqLine sci;
    FakePower power;
    Log log{"test"};
    dev::AcpiPm acpi{{sci, timers, power, log}};
    dev::Piix4Pm pm{{io, acpi}};
    ConfigWindow config{pm.function()};
    dev::Resettable& resettable() { return pm; }
    dev::Snapshottable& snapshottable() { return pm; }
    std::vector<IoWindow> windows() { return {{&config, 256, 4}}; }
};

// A function with an I/O BAR, a 64-bit BAR holding an MSI-X table, and MSI.
class BarDevice final : public dev::Resettable, public dev::Snapshottable {
public:
    struct State {
        dev::PciFunction::State pci;
        dev::MsixCapability::State msix;
    };
    explicit BarDevice(dev::PciBus& bus) {
        function.add_bar(0, {.kind = dev::PciBarKind::io, .size = 32, .name = "io", .windows = {}});
        function.add_bar(2, {.kind = dev::PciBarKind::memory64,
                             .size = 4096,
                             .name = "msix",
                             .windows = {msix.table_window(), msix.pending_window()}});
        function.on_write([this](unsigned offset, unsigned size) {
            msi.config_written(offset, size);
            msix.config_written(offset, size);
        });
        bus.attach({4, 0}, function).value();
    }
    void reset() override {
        msix.reset();
        function.reset();
    }
    void save(StateWriter& to) const override { save_state(to, State{function.state(), msix.state()}); }
    Result<void> load(StateReader& from) override {
        State loaded = TRY(load_state<State>(from));
        TRY(function.check(loaded.pci));
        TRY(msix.check(loaded.msix));
        msix.restore(loaded.msix);
        function.restore(loaded.pci);
        return {};
    }
    struct Messages final : dev::MsiTarget {
        unsigned count = 0;
        void deliver_msi(std::uint64_t, std::uint32_t) override { ++count; }
    } messages;
    dev::PciFunction function{{.vendor = 0x1af4, .device = 0x1000, .class_code = 0x020000, .interrupt_pin = 1}};
    dev::MsiCapability msi{function, messages, 8};
    dev::MsixCapability msix{function, messages, {.vectors = 70, .bar = 2, .pending_offset = 0x800}};
};
template <class V> void fields(V& v, BarDevice::State& s) {
    v.field("pci", s.pci);
    v.field("msix", s.msix);
}

struct BarDeviceRig : PciBase {
    BarDevice device{bus};
    ConfigWindow config{device.function};
    dev::Resettable& resettable() { return device; }
    dev::Snapshottable& snapshottable() { return device; }
    std::vector<IoWindow> windows() { return {{&config, 256, 4}, {device.msix.table_window().backing.io, 70 * 16, 4}}; }
    void stimulate(std::uint64_t random) {
        device.msi.notify(random & 7);
        device.msix.notify(unsigned(random >> 8) % 70);
        device.function.set_intx(random >> 16 & 1);
    }
};

} // namespace vmm::test
