// Piix4Pm: the power management function of a PC's south bridge (82371AB function 3, 8086:7113 at 00:01.3): where the
// ACPI registers and the SMBus controller lie.
#pragma once
#include "devices/pci/function.h"
#include "devices/pci/piix4_smbus.h"
#include "devices/platform/acpi_pm.h"

namespace vmm::dev {

// Maps AcpiPm's register block at PMBASE and the SMBus at SMBBA as the guest programs them. Saves its own registers
// and the SMBus controller's; AcpiPm is a component of its own. Device lock.
class Piix4Pm final : public Resettable, public Snapshottable {
public:
    struct State {
        PciFunction::State pci{};
        Piix4Smbus::State smbus{};
    };
    struct Needs {
        AddressSpace& io;
        AcpiPm& acpi;
    };
    explicit Piix4Pm(Needs needs);
    ~Piix4Pm() override;

    PciFunction& function() { return function_; }
    // What firmware does: places the two blocks and enables them. For booting without firmware; a reset undoes it.
    void assign(std::uint16_t pm_base, std::uint16_t smbus_base);

    // Whether a write to the APM control port is to raise an SMI (APMC_EN).
    bool apm_raises_smi() const;

    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    struct Block {
        std::optional<MappingId> id{};
        std::uint64_t base = 0;
    };
    void update();
    void place(Block& block, std::uint64_t base, Mapping mapping);

    Needs needs_;
    PciFunction function_;
    Piix4Smbus smbus_;
    Block pm_block_, smbus_block_;
};

} // namespace vmm::dev
