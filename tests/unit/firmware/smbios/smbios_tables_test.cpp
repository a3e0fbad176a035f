#include "firmware/smbios/smbios_tables.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>

using namespace vmm;
using namespace vmm::firmware;

namespace {
struct Structure {
    std::span<std::uint8_t const> formatted;
    std::vector<std::string> strings;
};
// Walks the structures as a guest does; by type.
std::multimap<int, Structure> walk(std::vector<std::uint8_t> const& bytes) {
    std::multimap<int, Structure> found;
    for (std::size_t at = 0; at < bytes.size();) {
        Structure s{std::span(bytes).subspan(at, bytes[at + 1]), {}};
        std::size_t text = at + bytes[at + 1];
        if (bytes[text] == 0) ++text;
        while (bytes[text] != 0) {
            s.strings.emplace_back(reinterpret_cast<char const*>(&bytes[text]));
            text += s.strings.back().size() + 1;
        }
        found.emplace(bytes[at], s);
        at = text + 1;
    }
    return found;
}
unsigned sum(std::span<std::uint8_t const> bytes) { return std::accumulate(bytes.begin(), bytes.end(), 0u) & 0xff; }
} // namespace

TEST(Smbios, the_entry_point_has_right_checksums_and_leads_to_the_structures) {
    auto const t = build_smbios_tables({.sockets = 2, .ram_below_4g = GiB}, 0xf6020);
    EXPECT_EQ(sum(t.entry), 0u);
    EXPECT_EQ(sum(std::span(t.entry).subspan(16)), 0u);
    EXPECT_EQ(load_le<std::uint16_t>(&t.entry[0x16]), t.structures.size());
    EXPECT_EQ(load_le<std::uint32_t>(&t.entry[0x18]), 0xf6020u);
    EXPECT_EQ(load_le<std::uint16_t>(&t.entry[0x1c]), walk(t.structures).size());
}

TEST(Smbios, structures_have_the_lengths_of_version_2_8_and_end_with_type_127) {
    auto const t = build_smbios_tables(
        {.sockets = 2, .ram_below_4g = 3 * GiB, .ram_above_4g = 30 * GiB, .serial = "S1", .cpu_name = "qemu64"}, 0);
    auto const all = walk(t.structures);
    std::map<int, std::size_t> const lengths{{0, 0x18},  {1, 0x1b},  {3, 0x16},  {4, 0x2a}, {16, 0x17},
                                             {17, 0x28}, {19, 0x1f}, {32, 0x0b}, {127, 4}};
    std::map<int, int> seen;
    for (auto const& [type, s] : all) {
        ASSERT_TRUE(lengths.count(type)) << type;
        EXPECT_EQ(s.formatted.size(), lengths.at(type)) << type;
        ++seen[type];
    }
    EXPECT_EQ(seen, (std::map<int, int>{{0, 1}, {1, 1}, {3, 1}, {4, 2}, {16, 1}, {17, 3}, {19, 2}, {32, 1}, {127, 1}}));
    EXPECT_EQ(all.find(1)->second.strings.back(), "S1");
    EXPECT_EQ(load_le<std::uint16_t>(&all.find(17)->second.formatted[12]), 16384);
    EXPECT_EQ(load_le<std::uint32_t>(&all.find(16)->second.formatted[7]), 33u * 1024 * 1024);
}

TEST(Smbios, the_uuid_is_stored_with_its_first_fields_little_endian) {
    SmbiosConfig config{.ram_below_4g = GiB};
    for (unsigned i = 0; i < 16; ++i) config.uuid[i] = std::uint8_t(i);
    auto const t = build_smbios_tables(config, 0);
    auto const all = walk(t.structures);
    auto const f = all.find(1)->second.formatted;
    EXPECT_EQ(f[8], 3);
    EXPECT_EQ(f[12], 5);
    EXPECT_EQ(f[14], 7);
    EXPECT_EQ(f[16], 8);
}

TEST(Smbios, long_structures_move_the_structures_to_the_top_of_ram) {
    AddressSpace space("memory", UINT64_MAX);
    auto ram = RamBlock::create("ram", 16 * MiB).value();
    space.map({.name = "ram", .range = AddressRange::of(0, 16 * MiB), .backing = Backing::of_ram(*ram)});
    EXPECT_FALSE(place_smbios_tables(space, {.sockets = 255, .ram_below_4g = 16 * MiB}, 16 * MiB).value().has_value());
    EXPECT_EQ(space.read(0xf6000, 4), 0x5f4d535fu);
    std::uint64_t const at = space.read(0xf6018, 4);
    EXPECT_EQ(space.read(at, 1), 0u);
    EXPECT_EQ(space.read(at + 1, 1), 0x18u);
    SmbiosConfig big{.sockets = 255, .ram_below_4g = 16 * MiB, .cpu_name = std::string(100, 'x')};
    big.manufacturer = std::string(100, 'y');
    auto const range = place_smbios_tables(space, big, 16 * MiB).value();
    ASSERT_TRUE(range.has_value());
    EXPECT_EQ(range->last, 16 * MiB - 1);
    EXPECT_TRUE(range->contains(space.read(0xf6018, 4)));
}

// dmidecode, where it is installed, reads a dump without complaint.
TEST(Smbios, dmidecode_reads_the_structures) {
    if (std::system("dmidecode -V >/dev/null 2>&1") != 0) GTEST_SKIP() << "no dmidecode";
    char directory[] = "/tmp/vmm-smbios-test-XXXXXX";
    std::string const dir = ::mkdtemp(directory);
    auto t = build_smbios_tables({.sockets = 2, .ram_below_4g = GiB, .cpu_name = "max"}, 0x20);
    std::ofstream out(dir + "/dump", std::ios::binary);
    out.write(reinterpret_cast<char const*>(t.entry.data()), std::streamsize(t.entry.size()));
    out.put(0);
    out.write(reinterpret_cast<char const*>(t.structures.data()), std::streamsize(t.structures.size()));
    out.close();
    EXPECT_EQ(std::system(("dmidecode --from-dump " + dir + "/dump > " + dir + "/text 2>&1").c_str()), 0);
    std::ifstream in(dir + "/text");
    std::string const text(std::istreambuf_iterator<char>(in), {});
    EXPECT_NE(text.find("SMBIOS 2.8 present"), std::string::npos) << text;
    for (char const* complaint : {"BAD INDEX", "TRUNCATED", "OUT OF SPEC", "Wrong"})
        EXPECT_EQ(text.find(complaint), std::string::npos) << text;
    std::filesystem::remove_all(dir);
}
