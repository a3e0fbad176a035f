// Piix3: the ISA bridge of a PC (82371SB function 0, 8086:7000 at 00:01.0): routing of the PCI interrupt wires to ISA
// interrupts, and the reset control register at 0xcf9.
#pragma once
#include "devices/core/irq_line.h"
#include "devices/pci/bus.h"

#include <array>

namespace vmm::dev {

// Wire W is routed to the ISA interrupt in PIRQRC[W] (0x60 + W) while its bit 7 is clear; to 3-7, 9-12, 14 and 15 only.
// Levels are active high on the lines it drives; the board makes them reach the 8259s and the I/O APIC. Device lock.
class Piix3 final : public PciIntxRouter, public Resettable, public Snapshottable {
public:
    static constexpr unsigned isa_irqs = 16;
    struct State {
        PciFunction::State pci{};
        std::array<bool, 4> wires{};
        std::uint8_t reset_control = 0;
    };
    struct Needs {
        std::array<IrqLine*, isa_irqs> irqs{}; // entries it may route to must be set
        IrqLine* reset = nullptr;              // pulsed: the whole machine
    };
    explicit Piix3(Needs needs);

    PciFunction& function() { return function_; }
    // The byte at 0xcf9, for PciConfigPorts.
    IoHandler& reset_control() { return reset_control_; }
    void set_intx(unsigned wire, bool level) override;
    // What firmware does: routes wire W to `irqs[W]`. For booting without firmware; a reset undoes it.
    void route(std::array<std::uint8_t, 4> const& irqs);

    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    struct ResetControl final : IoHandler {
        explicit ResetControl(Piix3& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        Piix3& device;
    };
    void update();

    Needs needs_;
    PciFunction function_;
    std::array<bool, 4> wires_{};
    std::uint8_t reset_register_ = 0;
    std::uint16_t driven_ = 0; // a bit for each ISA interrupt held high
    ResetControl reset_control_{*this};
};

} // namespace vmm::dev
