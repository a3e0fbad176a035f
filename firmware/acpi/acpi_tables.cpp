#include "firmware/acpi/acpi_tables.h"

#include "firmware/acpi/aml.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <cstring>
#include <numeric>
#include <string_view>

namespace vmm::firmware {

namespace {

#include "pc_dsdt.hex" // pc_dsdt_aml_code, made by iasl

using Bytes = std::vector<std::uint8_t>;
constexpr GuestPhys rsdp_address = 0xf5000; // in the area guests search: 0xe0000..0xfffff, 16-byte steps
constexpr std::size_t header_size = 36, checksum_at = 9, facs_size = 64;

std::uint8_t negative_sum(std::span<std::uint8_t const> bytes) {
    return std::uint8_t(-std::accumulate(bytes.begin(), bytes.end(), 0u));
}

// Appends little-endian fields.
struct Writer {
    Bytes bytes;
    void u8(std::uint8_t v) { bytes.push_back(v); }
    void u16(std::uint16_t v) { u8(std::uint8_t(v)), u8(std::uint8_t(v >> 8)); }
    void u32(std::uint32_t v) { u16(std::uint16_t(v)), u16(std::uint16_t(v >> 16)); }
    void u64(std::uint64_t v) { u32(std::uint32_t(v)), u32(std::uint32_t(v >> 32)); }
    void text(std::string_view v) { bytes.insert(bytes.end(), v.begin(), v.end()); }
    void zeros(std::size_t n) { bytes.resize(bytes.size() + n); }
};

// A table with the standard header (5.2.6).
Bytes table(std::string_view signature, std::uint8_t revision, Bytes const& body) {
    Writer w;
    w.text(signature);
    w.u32(std::uint32_t(header_size + body.size()));
    w.u8(revision);
    w.u8(0); // checksum, below
    w.text("VMM   ");
    w.text("VMMPC   ");
    w.u32(1);
    w.text("VMM ");
    w.u32(1);
    w.bytes.insert(w.bytes.end(), body.begin(), body.end());
    w.bytes[checksum_at] = negative_sum(w.bytes);
    return w.bytes;
}

// Generic Address Structure (5.2.3.2).
enum class Space : std::uint8_t { memory = 0, io = 1 };
void generic_address(Writer& w, Space space, std::uint8_t bits, std::uint64_t address) {
    w.u8(std::uint8_t(space));
    w.u8(address != 0 ? bits : 0);
    w.u8(0); // bit offset
    w.u8(0); // access size: undefined
    w.u64(address);
}

// Fixed ACPI Description Table (5.2.9), the 244 bytes of revision 3.
Bytes fadt(AcpiConfig const& config, std::uint32_t facs, std::uint32_t dsdt) {
    constexpr std::uint16_t sci = 9, smi_command = 0xb2, reset_port = 0xcf9, no_c_state = 0xfff;
    constexpr std::uint8_t acpi_enable = 0xf1, acpi_disable = 0xf0, reset_value = 6, century = 0x32;
    constexpr std::uint32_t wbinvd = 1 << 0, c1_supported = 1 << 2, no_fixed_sleep_button = 1 << 5,
                            reset_register = 1 << 10, cluster_model = 1 << 18;
    constexpr unsigned flat_model_cpus = 8; // more than the flat logical destination mode can name
    std::uint16_t const event = config.pm_base, control = std::uint16_t(config.pm_base + 4),
                        timer = std::uint16_t(config.pm_base + 8);
    std::uint8_t const gpe_length = config.gpe_base != 0 ? 4 : 0;
    Writer w;
    w.u32(facs);
    w.u32(dsdt);
    w.u8(0);
    w.u8(0); // preferred profile: unspecified
    w.u16(sci);
    w.u32(smi_command);
    w.u8(acpi_enable);
    w.u8(acpi_disable);
    w.u16(0); // S4BIOS request, performance state control
    for (std::uint32_t block : {std::uint32_t(event), 0u, std::uint32_t(control), 0u, 0u, std::uint32_t(timer),
                                std::uint32_t(config.gpe_base), 0u})
        w.u32(block);
    for (std::uint8_t length : {std::uint8_t(4), std::uint8_t(2), std::uint8_t(0), std::uint8_t(4), gpe_length})
        w.u8(length);
    w.zeros(3); // second GPE block, C-state control
    w.u16(no_c_state);
    w.u16(no_c_state);
    w.zeros(8); // cache flush, duty cycle, RTC alarms
    w.u8(century);
    std::uint16_t const legacy_devices = 1, has_i8042 = 2, no_vga = 4;
    w.u16(std::uint16_t(legacy_devices | (config.i8042 ? has_i8042 : 0) | (config.vga ? 0 : no_vga)));
    w.u8(0);
    w.u32(wbinvd | c1_supported | no_fixed_sleep_button | reset_register |
          (config.cpus > flat_model_cpus ? cluster_model : 0));
    generic_address(w, Space::io, 8, reset_port);
    w.u8(reset_value);
    w.zeros(3);
    w.u64(0); // X_FIRMWARE_CTRL: the 32-bit field holds it
    w.u64(dsdt);
    generic_address(w, Space::io, 32, event);
    generic_address(w, Space::io, 0, 0);
    generic_address(w, Space::io, 16, control);
    generic_address(w, Space::io, 0, 0);
    generic_address(w, Space::io, 0, 0);
    generic_address(w, Space::io, 32, timer);
    generic_address(w, Space::io, std::uint8_t(8 * gpe_length), config.gpe_base);
    generic_address(w, Space::io, 0, 0);
    return table("FACP", 3, w.bytes);
}

// Firmware ACPI Control Structure (5.2.10): no standard header, on a 64-byte boundary.
Bytes facs() {
    Writer w;
    w.text("FACS");
    w.u32(facs_size);
    w.zeros(facs_size - 8);
    w.bytes[32] = 1; // version
    return w.bytes;
}

// Multiple APIC Description Table (5.2.12).
Bytes madt(AcpiConfig const& config) {
    constexpr std::uint32_t local_apic = 0xfee00000, io_apic = 0xfec00000, dual_8259 = 1, enabled = 1;
    constexpr std::uint16_t level_active_high = 0xd, conforming = 0;
    constexpr std::uint8_t all_processors = 0xff;
    Writer w;
    w.u32(local_apic);
    w.u32(dual_8259);
    for (unsigned cpu = 0; cpu < config.cpus; ++cpu) {
        w.u8(0), w.u8(8);
        w.u8(std::uint8_t(cpu)), w.u8(config.apic_ids.empty() ? std::uint8_t(cpu) : config.apic_ids[cpu]);
        w.u32(enabled);
    }
    w.u8(1), w.u8(12);
    w.u8(0), w.u8(0); // id, reserved
    w.u32(io_apic);
    w.u32(0); // first global interrupt
    auto interrupt_override = [&w](std::uint8_t isa, std::uint32_t global, std::uint16_t flags) {
        w.u8(2), w.u8(10);
        w.u8(0), w.u8(isa);
        w.u32(global);
        w.u16(flags);
    };
    interrupt_override(0, 2, conforming); // the PIT
    for (std::uint8_t irq : {5, 9, 10, 11}) interrupt_override(irq, irq, level_active_high);
    w.u8(4), w.u8(6);
    w.u8(all_processors);
    w.u16(conforming);
    w.u8(1); // NMI on LINT1
    return table("APIC", 1, w.bytes);
}

// HPET description table (IA-PC HPET specification 3.2.4).
Bytes hpet() {
    constexpr std::uint32_t id = 0x8086a201, base = 0xfed00000; // Intel, legacy replacement, 64-bit, 3 timers
    constexpr std::uint16_t minimum_tick = 100;
    Writer w;
    w.u32(id);
    generic_address(w, Space::memory, 64, base);
    w.u8(0); // number
    w.u16(minimum_tick);
    w.u8(0); // no page protection
    return table("HPET", 1, w.bytes);
}

// What pc.asl leaves open: processors and the values it names as External.
Bytes ssdt(AcpiConfig const& config) {
    std::uint32_t mask = 0;
    for (unsigned i = 0; i < 4; ++i) mask |= std::uint32_t(config.com[i]) << i;
    mask |= config.parallel << 4 | config.floppy << 5 | config.i8042 << 6 | config.hpet << 7;
    aml::Code body = aml::root_integer("CFGM", mask);
    auto append = [&body](aml::Code const& code) { body.insert(body.end(), code.begin(), code.end()); };
    append(aml::root_integer("PCIL", std::uint32_t(config.pci_window)));
    aml::Code processors;
    for (unsigned cpu = 0; cpu < config.cpus; ++cpu) {
        auto const code = aml::processor(cpu);
        processors.insert(processors.end(), code.begin(), code.end());
    }
    append(aml::system_bus_scope(processors));
    return table("SSDT", 1, body);
}

// RSDT (4-byte entries) or XSDT (8-byte entries).
Bytes root_table(std::string_view signature, std::vector<std::uint32_t> const& tables, unsigned entry_size) {
    Writer w;
    for (std::uint32_t at : tables) {
        w.u32(at);
        w.zeros(entry_size - 4);
    }
    return table(signature, 1, w.bytes);
}

std::array<std::uint8_t, 36> rsdp(std::uint32_t rsdt, std::uint32_t xsdt) {
    constexpr std::size_t old_size = 20, old_checksum = 8, checksum = 32;
    Writer w;
    w.text("RSD PTR ");
    w.u8(0);
    w.text("VMM   ");
    w.u8(2); // revision
    w.u32(rsdt);
    w.u32(36);
    w.u64(xsdt);
    w.zeros(4);
    std::array<std::uint8_t, 36> out;
    std::copy(w.bytes.begin(), w.bytes.end(), out.begin());
    out[old_checksum] = negative_sum(std::span(out).first(old_size));
    out[checksum] = negative_sum(out);
    return out;
}

} // namespace

AcpiTables build_acpi_tables(AcpiConfig const& config, GuestPhys base) {
    VMM_ASSERT(config.apic_ids.empty() || config.apic_ids.size() == config.cpus);
    VMM_ASSERT(config.cpus >= 1 && config.cpus <= 255 && base % page_size == 0 && base < 4 * GiB);
    AcpiTables all;
    auto add = [&all, base](Bytes const& bytes) {
        all.bytes.resize(align_up<std::size_t>(all.bytes.size(), facs_size));
        std::uint32_t const offset = std::uint32_t(all.bytes.size());
        AcpiTables::Table entry{{}, offset, std::uint32_t(bytes.size())};
        std::memcpy(entry.signature.data(), bytes.data(), 4);
        all.tables.push_back(entry);
        all.bytes.insert(all.bytes.end(), bytes.begin(), bytes.end());
        return std::uint32_t(base + offset);
    };
    std::uint32_t const facs_at = add(facs());
    std::uint32_t const dsdt_at = add(Bytes(std::begin(pc_dsdt_aml_code), std::end(pc_dsdt_aml_code)));
    std::vector<std::uint32_t> listed{add(fadt(config, facs_at, dsdt_at)), add(ssdt(config)), add(madt(config))};
    if (config.hpet) listed.push_back(add(hpet()));
    std::uint32_t const rsdt_at = add(root_table("RSDT", listed, 4)), xsdt_at = add(root_table("XSDT", listed, 8));
    all.rsdp = rsdp(rsdt_at, xsdt_at);
    return all;
}

Result<AcpiPlacement> place_acpi_tables(AddressSpace& memory, AcpiConfig const& config, std::uint64_t ram_below_4g) {
    std::uint64_t const size = align_up<std::uint64_t>(build_acpi_tables(config, 0).bytes.size(), page_size);
    if (ram_below_4g < 2 * MiB)
        return error("the ACPI tables need at least 2 MiB of guest RAM; give the guest more memory (-m)");
    GuestPhys const base = align_down(ram_below_4g - size, page_size);
    AcpiTables const tables = build_acpi_tables(config, base);
    if (!memory.write_bytes(base, tables.bytes) || !memory.write_bytes(rsdp_address, tables.rsdp))
        return error("the ACPI tables ({} bytes at {:#x}) lie outside guest RAM", size, base);
    return AcpiPlacement{rsdp_address, AddressRange::of(base, ram_below_4g - base)};
}

} // namespace vmm::firmware
