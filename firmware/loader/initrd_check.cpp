#include "firmware/loader/initrd_check.h"

#include "firmware/loader/initrd_parts.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <string_view>

namespace vmm::firmware {

namespace {

using namespace std::string_view_literals;
using Span = std::span<std::uint8_t const>;

struct PartFormat {
    std::string_view magic;
    Result<std::uint64_t> (*end)(PartReader&, std::uint64_t start);
};
constexpr PartFormat part_formats[] = {
    {"070701"sv, cpio_end},
    {"070702"sv, cpio_end},
    {"\x1f\x8b\x08"sv, gzip_end},
    {"BZh"sv, bzip2_end},
    {"\x5d\0\0"sv, lzma_end},
    {"\xfd\x37zXZ\0"sv, xz_end},
    {"\x89LZO\0\r\n\x1a\n"sv, lzo_end},
    {"\x02\x21\x4c\x18"sv, lz4_end},
    {"\x28\xb5\x2f\xfd"sv, zstd_end},
};

// A file system that Linux takes as a RAM disk, and where its superblock says how many bytes it has.
struct DiskFormat {
    std::uint64_t offset;
    std::string_view magic;
    char const* name;
    std::uint64_t (*size)(Span head); // 0: not told
};
constexpr std::uint64_t superblock = 1024;
std::uint64_t unknown_size(Span) { return 0; }
std::uint64_t romfs_size(Span head) { return byte_swap(load_le<std::uint32_t>(&head[8])); }
std::uint64_t cramfs_size(Span head) { return load_le<std::uint32_t>(&head[4]); }
std::uint64_t squashfs_size(Span head) { return load_le<std::uint64_t>(&head[40]); }
std::uint64_t ext2_size(Span head) {
    std::uint32_t const shift = load_le<std::uint32_t>(&head[superblock + 24]);
    return shift > 6 ? 0 : std::uint64_t(load_le<std::uint32_t>(&head[superblock + 4])) * KiB << shift;
}
constexpr DiskFormat disk_formats[] = {
    {0, "-rom1fs-"sv, "romfs", romfs_size},
    {0, "\x45\x3d\xcd\x28"sv, "cramfs", cramfs_size},
    {512, "\x45\x3d\xcd\x28"sv, "cramfs", unknown_size},
    {0, "hsqs"sv, "squashfs", squashfs_size},
    {superblock + 16, "\x7f\x13"sv, "minix", unknown_size},
    {superblock + 16, "\x8f\x13"sv, "minix", unknown_size},
    {superblock + 16, "\x68\x24"sv, "minix", unknown_size},
    {superblock + 16, "\x78\x24"sv, "minix", unknown_size},
    {superblock + 24, "\x5a\x4d"sv, "minix", unknown_size},
    {superblock + 56, "\x53\xef"sv, "ext2", ext2_size},
};

bool has(Span bytes, std::uint64_t offset, std::string_view magic) {
    return bytes.size() >= offset + magic.size() &&
           std::equal(magic.begin(), magic.end(), bytes.begin() + std::ptrdiff_t(offset),
                      [](char a, std::uint8_t b) { return std::uint8_t(a) == b; });
}

PartFormat const* find_part(Span bytes) {
    auto const* found = std::ranges::find_if(part_formats, [&](auto const& f) { return has(bytes, 0, f.magic); });
    return found == std::end(part_formats) ? nullptr : found;
}

DiskFormat const* find_disk(Span head) {
    if (head.size() < 2 * superblock) return nullptr; // no file system is smaller than its superblock
    auto const* found = std::ranges::find_if(disk_formats, [&](auto const& f) { return has(head, f.offset, f.magic); });
    return found == std::end(disk_formats) ? nullptr : found;
}

Span without_leading_zeros(Span bytes) {
    auto const first = std::ranges::find_if(bytes, [](std::uint8_t b) { return b != 0; });
    return bytes.subspan(std::size_t(first - bytes.begin()));
}

Result<std::uint64_t> skip_zeros(PartReader& reader, std::uint64_t at) {
    for (;;) {
        Span const bytes = TRY(reader.at(at, PartReader::max_view));
        Span const rest = without_leading_zeros(bytes);
        at += bytes.size() - rest.size();
        if (!rest.empty() || bytes.empty()) return at;
    }
}

} // namespace

Result<void> check_initrd_head(Span head, std::string const& path) {
    if (head.empty()) return error("initrd '{}' is empty", path);
    Span const start = without_leading_zeros(head);
    if (find_disk(head) || find_part(start)) return {};
    if (has(start, 0, "070707"))
        return error("initrd '{}' is a cpio archive in the old format; Linux takes newc only (cpio -o -H newc)", path);
    return error("initrd '{}' is nothing that Linux knows: a cpio archive in newc format, also compressed with gzip, "
                 "bzip2, lzma, xz, lzo, lz4 or zstd, or a romfs, cramfs, squashfs, minix or ext2 image (-machine "
                 "initrd-check=off passes it on as it is)",
                 path);
}

Result<std::vector<std::string>> check_initrd(FileSource const& initrd) {
    PartReader reader(initrd);
    Span const head = TRY(reader.at(0, PartReader::max_view));
    TRY(check_initrd_head(head, initrd.path()));
    if (DiskFormat const* disk = find_disk(head)) {
        std::uint64_t const size = disk->size(head);
        if (size > initrd.size())
            return error("initrd '{}' is cut off: the {} image in it has {} bytes, the file {}", initrd.path(),
                         disk->name, size, initrd.size());
        return std::vector<std::string>();
    }
    for (std::uint64_t at = 0;;) {
        at = TRY(skip_zeros(reader, at));
        if (at == initrd.size()) return std::vector<std::string>();
        PartFormat const* const part = find_part(TRY(reader.at(at, PartReader::magic_view)));
        if (!part)
            return std::vector{fmt::format("initrd '{}': what begins at offset {} is nothing that Linux knows; it will "
                                           "leave that out",
                                           initrd.path(), at)};
        at = TRY(part->end(reader, at));
    }
}

} // namespace vmm::firmware
