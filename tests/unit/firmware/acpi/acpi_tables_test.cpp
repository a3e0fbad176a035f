#include "firmware/acpi/acpi_tables.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string_view>

using namespace vmm;
using namespace vmm::firmware;

namespace {
unsigned sum(std::span<std::uint8_t const> bytes) { return std::accumulate(bytes.begin(), bytes.end(), 0u) & 0xff; }
std::string name(AcpiTables::Table const& t) { return {t.signature.data(), 4}; }
std::span<std::uint8_t const> find(AcpiTables const& all, std::string_view wanted) {
    for (auto const& t : all.tables)
        if (name(t) == wanted) return std::span(all.bytes).subspan(t.offset, t.size);
    return {};
}
} // namespace

TEST(AcpiTables, every_checksum_is_right_and_every_length_is_the_tables) {
    auto const all = build_acpi_tables({.cpus = 255}, 0x7fe0000);
    for (auto const& t : all.tables) {
        auto const bytes = std::span(all.bytes).subspan(t.offset, t.size);
        EXPECT_EQ(load_le<std::uint32_t>(&bytes[4]), bytes.size()) << name(t);
        if (name(t) != "FACS") {
            EXPECT_EQ(sum(bytes), 0u) << name(t);
        }
    }
    EXPECT_EQ(sum(std::span(all.rsdp).first(20)), 0u);
    EXPECT_EQ(sum(all.rsdp), 0u);
    EXPECT_EQ(find(all, "FACP").size(), 244u);
}

TEST(AcpiTables, the_root_tables_lead_to_all_others) {
    constexpr GuestPhys base = 0x7fe0000;
    auto const all = build_acpi_tables({}, base);
    auto const rsdt = find(all, "RSDT"), xsdt = find(all, "XSDT");
    EXPECT_EQ(base + std::uint64_t(rsdt.data() - all.bytes.data()), load_le<std::uint32_t>(&all.rsdp[16]));
    EXPECT_EQ(base + std::uint64_t(xsdt.data() - all.bytes.data()), load_le<std::uint64_t>(&all.rsdp[24]));
    ASSERT_EQ(rsdt.size(), 36u + 4 * 4);
    std::string seen;
    for (unsigned i = 0; i < 4; ++i) {
        std::uint32_t const at = load_le<std::uint32_t>(&rsdt[36 + 4 * i]);
        EXPECT_EQ(load_le<std::uint64_t>(&xsdt[36 + 8 * i]), at);
        seen += std::string(reinterpret_cast<char const*>(&all.bytes[at - base]), 4) + " ";
    }
    EXPECT_EQ(seen, "FACP SSDT APIC HPET ");
    auto const fadt = find(all, "FACP");
    std::uint32_t const facs = load_le<std::uint32_t>(&fadt[36]);
    EXPECT_EQ(facs % 64, 0u);
    EXPECT_EQ(std::memcmp(&all.bytes[facs - base], "FACS", 4), 0);
    EXPECT_EQ(std::memcmp(&all.bytes[load_le<std::uint32_t>(&fadt[40]) - base], "DSDT", 4), 0);
}

TEST(AcpiTables, the_fadt_names_the_power_management_ports) {
    auto const all = build_acpi_tables({}, 0);
    auto const f = find(all, "FACP");
    EXPECT_EQ(load_le<std::uint16_t>(&f[46]), 9);
    EXPECT_EQ(load_le<std::uint32_t>(&f[48]), 0xb2u);
    EXPECT_EQ(load_le<std::uint32_t>(&f[56]), 0x600u);
    EXPECT_EQ(load_le<std::uint32_t>(&f[64]), 0x604u);
    EXPECT_EQ(load_le<std::uint32_t>(&f[76]), 0x608u);
    EXPECT_EQ(f[88], 4);
    EXPECT_EQ(f[89], 2);
    EXPECT_EQ(f[91], 4);
    EXPECT_EQ(f[108], 0x32);
    EXPECT_EQ(load_le<std::uint64_t>(&f[120]), 0xcf9u);
    EXPECT_EQ(f[128], 6);
    EXPECT_EQ(load_le<std::uint64_t>(&f[212]), 0x608u);
}

TEST(AcpiTables, the_madt_lists_processors_and_interrupt_overrides) {
    auto const all = build_acpi_tables({.cpus = 3}, 0);
    auto const m = find(all, "APIC");
    unsigned cpus = 0, overrides = 0;
    for (std::size_t at = 44; at < m.size(); at += m[at + 1]) {
        cpus += m[at] == 0;
        if (m[at] == 2 && m[at + 3] == 0) {
            EXPECT_EQ(m[at + 4], 2);
        }
        if (m[at] == 2 && m[at + 3] != 0) {
            EXPECT_EQ(load_le<std::uint16_t>(&m[at + 8]), 0xd);
        }
        overrides += m[at] == 2;
    }
    EXPECT_EQ(cpus, 3u);
    EXPECT_EQ(overrides, 5u);
}

TEST(AcpiTables, the_madt_gives_processors_the_apic_ids_told) {
    auto const all = build_acpi_tables({.cpus = 2, .apic_ids = {0, 4}}, 0);
    auto const m = find(all, "APIC");
    EXPECT_EQ(m[44 + 8 + 2], 1);
    EXPECT_EQ(m[44 + 8 + 3], 4);
}

TEST(AcpiTables, are_placed_at_the_top_of_ram_and_found_in_the_bios_area) {
    AddressSpace space("memory", UINT64_MAX);
    auto ram = RamBlock::create("ram", 16 * MiB).value();
    space.map({.name = "ram", .range = AddressRange::of(0, 16 * MiB), .backing = Backing::of_ram(*ram)});
    auto const placed = place_acpi_tables(space, {}, 16 * MiB).value();
    EXPECT_EQ(placed.range.last, 16 * MiB - 1);
    EXPECT_EQ(placed.rsdp % 16, 0u);
    std::uint64_t const rsdt = space.read(placed.rsdp + 16, 4);
    EXPECT_TRUE(placed.range.contains(rsdt));
    EXPECT_EQ(space.read(rsdt, 4), 0x54445352u);
    EXPECT_FALSE(place_acpi_tables(space, {}, 64 * MiB).ok());
}

// ACPICA's own disassembler reads back all of them, DSDT and SSDT together, and finds nothing wrong.
TEST(AcpiTables, iasl_reads_every_table_back_without_complaint) {
    if (std::system("iasl -v >/dev/null 2>&1") != 0) GTEST_SKIP() << "no iasl";
    char directory[] = "/tmp/vmm-acpi-test-XXXXXX";
    std::string const dir = ::mkdtemp(directory);
    auto const all = build_acpi_tables({.cpus = 70, .com = {true, true, true, true}, .parallel = true}, 0x7fe0000);
    for (auto const& t : all.tables)
        std::ofstream(dir + "/" + name(t) + ".dat", std::ios::binary)
            .write(reinterpret_cast<char const*>(&all.bytes[t.offset]), std::streamsize(t.size));
    auto run = [&](std::string const& command) {
        int const rc = std::system(("cd " + dir + " && " + command + " >out 2>&1").c_str());
        std::ifstream in(dir + "/out");
        std::string const text(std::istreambuf_iterator<char>(in), {});
        EXPECT_EQ(rc, 0) << command << "\n" << text;
        for (char const* complaint : {"Error", "Warning", "Invalid", "Incorrect", "Could not"})
            EXPECT_EQ(text.find(complaint), std::string::npos) << command << "\n" << text;
    };
    for (auto const& t : all.tables)
        if (name(t) != "DSDT" && name(t) != "SSDT") run("iasl -d " + name(t) + ".dat");
    run("iasl -e SSDT.dat -d DSDT.dat");
    run("iasl -e DSDT.dat -d SSDT.dat");
    std::ifstream dsl(dir + "/SSDT.dsl");
    std::string const text(std::istreambuf_iterator<char>(dsl), {});
    EXPECT_NE(text.find("Device (C045)"), std::string::npos);
    std::filesystem::remove_all(dir);
}
