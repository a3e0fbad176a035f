#include "block/tools/common/partitions.h"

#include <algorithm>
#include <cstring>

namespace vmm::block {

namespace {

constexpr std::uint64_t sector = 512;
constexpr unsigned max_partitions = 128, max_links = 256;
constexpr std::size_t mbr_entries = 446, mbr_entry_bytes = 16;

std::uint32_t read_le32(std::uint8_t const* p) {
    return std::uint32_t(p[0]) | std::uint32_t(p[1]) << 8 | std::uint32_t(p[2]) << 16 | std::uint32_t(p[3]) << 24;
}
std::uint64_t read_le64(std::uint8_t const* p) { return read_le32(p) | std::uint64_t(read_le32(p + 4)) << 32; }

struct MbrEntry {
    std::uint8_t type;
    std::uint64_t start, sectors;
    bool extended() const { return type == 0x05 || type == 0x0f || type == 0x85; }
};
MbrEntry mbr_entry(std::uint8_t const* table, unsigned index) {
    std::uint8_t const* p = table + mbr_entries + index * mbr_entry_bytes;
    return {p[4], read_le32(p + 8), read_le32(p + 12)};
}
bool has_signature(std::uint8_t const* table) { return table[510] == 0x55 && table[511] == 0xaa; }

// False when nothing of it lies on the disk.
bool add(std::vector<Partition>& list, Partition one, std::uint64_t disk_size) {
    if (one.length == 0 || one.offset >= disk_size || list.size() >= max_partitions) return false;
    one.length = std::min(one.length, disk_size - one.offset);
    list.push_back(std::move(one));
    return true;
}

std::string guid_text(std::uint8_t const* p) {
    return fmt::format("{:08x}-{:04x}-{:04x}-{:02x}{:02x}-{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}", read_le32(p),
                       p[4] | p[5] << 8, p[6] | p[7] << 8, p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15]);
}

// Chain of extended boot records: each holds one logical partition and the next link, relative to the first.
Task<Result<void>> read_logical(BlockDevice& disk, std::uint64_t base, std::vector<Partition>& list) {
    std::vector<std::uint8_t> table(sector);
    Bytes all(table);
    std::uint64_t at = base;
    unsigned number = 5;
    for (unsigned link = 0; link < max_links && at + 1 <= disk.size_bytes() / sector; ++link) {
        CO_TRY(co_await read_bytes(disk, at * sector, all));
        if (!has_signature(table.data())) break;
        MbrEntry logical = mbr_entry(table.data(), 0), next = mbr_entry(table.data(), 1);
        Partition one{number, (at + logical.start) * sector, logical.sectors * sector,
                      fmt::format("{:#04x}", logical.type)};
        if (logical.type != 0 && add(list, one, disk.size_bytes())) ++number;
        if (!next.extended() || next.start == 0) break;
        at = base + next.start;
    }
    co_return Result<void>{};
}

// Tries a GPT whose logical blocks have `block` bytes.
Task<Result<bool>> read_gpt(BlockDevice& disk, std::uint64_t block, std::vector<Partition>& list) {
    if (disk.size_bytes() < 2 * block) co_return false;
    std::vector<std::uint8_t> header(92);
    Bytes head(header);
    CO_TRY(co_await read_bytes(disk, block, head));
    if (std::memcmp(header.data(), "EFI PART", 8) != 0) co_return false;
    std::uint64_t table_at = read_le64(&header[72]);
    std::uint32_t entries = std::min<std::uint32_t>(read_le32(&header[80]), max_partitions);
    std::uint32_t entry_bytes = read_le32(&header[84]);
    if (entry_bytes < 128 || entry_bytes > 4096 || table_at >= disk.size_bytes() / block) co_return false;
    std::vector<std::uint8_t> table(std::size_t(entries) * entry_bytes);
    if (table.size() > disk.size_bytes() - table_at * block) co_return false;
    Bytes all(table);
    CO_TRY(co_await read_bytes(disk, table_at * block, all));
    for (unsigned i = 0; i < entries; ++i) {
        std::uint8_t const* p = &table[std::size_t(i) * entry_bytes];
        std::uint64_t first = read_le64(p + 32), last = read_le64(p + 40);
        if (std::all_of(p, p + 16, [](std::uint8_t b) { return b == 0; }) || last < first) continue;
        if (first >= disk.size_bytes() / block) continue;
        std::uint64_t blocks = std::min(last - first + 1, disk.size_bytes() / block - first);
        add(list, Partition{i + 1, first * block, blocks * block, guid_text(p)}, disk.size_bytes());
    }
    co_return true;
}

} // namespace

Task<Result<std::vector<Partition>>> read_partitions(BlockDevice& disk) {
    std::vector<Partition> list;
    if (disk.size_bytes() < sector) co_return list;
    for (std::uint64_t block : {sector, 8 * sector}) {
        CO_TRY_ASSIGN(bool gpt, co_await read_gpt(disk, block, list));
        if (gpt) co_return list;
    }
    std::vector<std::uint8_t> table(sector);
    Bytes all(table);
    CO_TRY(co_await read_bytes(disk, 0, all));
    if (!has_signature(table.data())) co_return list;
    std::uint64_t extended = 0;
    for (unsigned i = 0; i < 4; ++i) {
        MbrEntry entry = mbr_entry(table.data(), i);
        if ((table[mbr_entries + i * mbr_entry_bytes] & 0x7f) != 0) co_return std::vector<Partition>{}; // a boot sector
        if (entry.type == 0 || entry.sectors == 0) continue;
        if (entry.extended()) {
            extended = entry.start;
            continue;
        }
        add(list, Partition{i + 1, entry.start * sector, entry.sectors * sector, fmt::format("{:#04x}", entry.type)},
            disk.size_bytes());
    }
    if (extended != 0) {
        CO_TRY(co_await read_logical(disk, extended, list));
    }
    co_return list;
}

} // namespace vmm::block
