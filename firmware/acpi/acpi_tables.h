// The PC's ACPI tables (ACPI specification 6.4; the revisions used are those of ACPI 2.0, which every guest reads).
#pragma once
#include "vmm/memory/address_space.h"

#include <array>
#include <cstdint>
#include <vector>

namespace vmm::firmware {

// What the tables say of the machine.
struct AcpiConfig {
    unsigned cpus = 1;                     // 1..255
    std::vector<std::uint8_t> apic_ids{};  // of each processor; none given: its number
    std::uint64_t pci_window = 0xc0000000; // first address of the PCI memory window below 4 GiB
    std::array<bool, 4> com{true, false, false, false};
    bool parallel = false, floppy = false, i8042 = true, hpet = true, vga = true;
    std::uint16_t pm_base = 0x600; // PIIX4 power management block
    std::uint16_t gpe_base = 0;    // general purpose events, 4 bytes; 0 = none
};

// `bytes` hold all tables but the RSDP, one after the other, with addresses for being placed at the base given.
struct AcpiTables {
    std::vector<std::uint8_t> bytes;
    std::array<std::uint8_t, 36> rsdp; // revision 2, naming RSDT and XSDT
    struct Table {
        std::array<char, 4> signature;
        std::uint32_t offset, size; // in `bytes`
    };
    std::vector<Table> tables; // in order of address
};

// Builds all tables: RSDT, XSDT, FADT, FACS, DSDT, SSDT, MADT, HPET. `base` is page-aligned and below 4 GiB.
AcpiTables build_acpi_tables(AcpiConfig const& config, GuestPhys base);

// Where place_acpi_tables put them.
struct AcpiPlacement {
    GuestPhys rsdp;     // in the BIOS area, on a 16-byte boundary, where guests search for it
    AddressRange range; // in RAM: not to be given to the guest as usable
};
// For booting without firmware: writes the tables to the top of the RAM that ends at `ram_below_4g` and the RSDP to the
// BIOS area, which must be writable. Errors: no RAM there.
Result<AcpiPlacement> place_acpi_tables(AddressSpace& memory, AcpiConfig const& config, std::uint64_t ram_below_4g);

} // namespace vmm::firmware
