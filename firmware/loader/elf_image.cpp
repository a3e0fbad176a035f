#include "firmware/loader/elf_image.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <cstring>

namespace vmm::firmware {

namespace {

using File = std::span<std::uint8_t const>;
constexpr std::uint32_t pt_load = 1, pt_interpreter = 3, pt_note = 4;
constexpr std::uint16_t em_386 = 3, em_x86_64 = 62;
constexpr std::uint32_t xen_note_phys32_entry = 18;
constexpr std::uint16_t et_exec = 2, et_dyn = 3;

struct Layout { // of a header in either class
    std::uint32_t header_size, entry, phoff, shoff, phentsize, phnum, shentsize, shnum, shstrndx, program_header_size;
};
constexpr Layout layout32{52, 24, 28, 32, 42, 44, 46, 48, 50, 32};
constexpr Layout layout64{64, 24, 32, 40, 54, 56, 58, 60, 62, 56};

// [offset, offset+size) of the file, or nothing when it is not all there.
std::optional<File> slice(File file, std::uint64_t offset, std::uint64_t size) {
    if (offset > file.size() || size > file.size() - offset) return std::nullopt;
    return file.subspan(offset, size);
}

template <class T> T get(File bytes, std::size_t offset) { return load_le<T>(bytes.data() + offset); }
// A field as wide as the class's addresses.
std::uint64_t get_word(File bytes, std::size_t offset, bool is64) {
    return is64 ? get<std::uint64_t>(bytes, offset) : get<std::uint32_t>(bytes, offset);
}

struct ProgramHeader {
    std::uint32_t type;
    std::uint64_t offset, virtual_address, physical, file_size, memory_size, alignment;
};
ProgramHeader program_header(File h, bool is64) {
    if (is64)
        return {get<std::uint32_t>(h, 0),  get<std::uint64_t>(h, 8),  get<std::uint64_t>(h, 16),
                get<std::uint64_t>(h, 24), get<std::uint64_t>(h, 32), get<std::uint64_t>(h, 40),
                get<std::uint64_t>(h, 48)};
    return {get<std::uint32_t>(h, 0),  get<std::uint32_t>(h, 4),  get<std::uint32_t>(h, 8), get<std::uint32_t>(h, 12),
            get<std::uint32_t>(h, 16), get<std::uint32_t>(h, 20), get<std::uint32_t>(h, 28)};
}

// Looks for the PVH entry in one PT_NOTE. Names and descriptors are padded to 4 bytes, or to 8 in segments so aligned.
std::optional<std::uint32_t> find_pvh_note(File notes, std::uint64_t alignment) {
    std::uint64_t const pad = alignment == 8 ? 8 : 4;
    while (notes.size() >= 12) {
        std::uint64_t const name_size = get<std::uint32_t>(notes, 0), desc_size = get<std::uint32_t>(notes, 4);
        std::uint32_t const type = get<std::uint32_t>(notes, 8);
        std::uint64_t const desc_at = align_up<std::uint64_t>(12 + name_size, pad);
        auto const name = slice(notes, 12, name_size), desc = slice(notes, desc_at, desc_size);
        if (!name || !desc) return std::nullopt;
        if (type == xen_note_phys32_entry && name_size == 4 && std::memcmp(name->data(), "Xen", 4) == 0 &&
            desc_size >= 4)
            return get<std::uint32_t>(*desc, 0);
        std::uint64_t const next = align_up<std::uint64_t>(desc_at + desc_size, pad);
        if (next >= notes.size()) return std::nullopt;
        notes = notes.subspan(next);
    }
    return std::nullopt;
}

void read_sections(ElfImage& image, File file, Layout const& at) {
    std::uint64_t const offset = get_word(file, at.shoff, image.is64);
    std::uint32_t const count = get<std::uint16_t>(file, at.shnum), size = get<std::uint16_t>(file, at.shentsize);
    auto const headers = slice(file, offset, std::uint64_t(count) * size);
    if (offset == 0 || count == 0 || size != (image.is64 ? 64u : 40u) || !headers) return;
    image.section_headers = *headers;
    image.section_count = count;
    image.section_entry_size = size;
    image.section_names = get<std::uint16_t>(file, at.shstrndx);
}

Result<void> read_segments(ElfImage& image, File file, Layout const& at, std::string const& path) {
    std::uint32_t const count = get<std::uint16_t>(file, at.phnum), size = get<std::uint16_t>(file, at.phentsize);
    std::uint64_t const offset = get_word(file, at.phoff, image.is64);
    if (count > ElfImage::max_program_headers)
        return error("'{}' is a damaged ELF file: {} program headers", path, count);
    if (count != 0 && size < at.program_header_size)
        return error("'{}' is a damaged ELF file: program headers of {} bytes", path, size);
    auto const table = slice(file, offset, std::uint64_t(count) * size);
    if (!table) return error("'{}' is an ELF file that is cut off: its program headers lie past its end", path);

    for (std::uint32_t i = 0; i < count; ++i) {
        ProgramHeader const h = program_header(table->subspan(std::uint64_t(i) * size), image.is64);
        auto const bytes = slice(file, h.offset, h.file_size);
        if (h.type == pt_note && bytes && !image.pvh_entry) image.pvh_entry = find_pvh_note(*bytes, h.alignment);
        if (h.type == pt_interpreter)
            return error("'{}' is a program for an operating system (it names a dynamic linker), not a kernel", path);
        if (h.type != pt_load || h.memory_size == 0) continue;
        if (!bytes) return error("'{}' is an ELF file that is cut off: segment {} lies past its end", path, i);
        if (h.file_size > h.memory_size || !checked_add(h.physical, h.memory_size))
            return error("'{}' is a damaged ELF file: segment {} has impossible sizes", path, i);
        image.segments.push_back({h.offset, h.file_size, h.memory_size, h.physical, h.virtual_address});
    }
    if (image.segments.empty()) return error("'{}' is an ELF file without loadable segments, not a kernel", path);
    return {};
}

Result<ElfImage> parse(File file, bool is64, std::string const& path) {
    Layout const& at = is64 ? layout64 : layout32;
    if (file.size() < at.header_size) return error("'{}' is an ELF file that is cut off inside its header", path);
    std::uint16_t const type = get<std::uint16_t>(file, 16);
    if (type != et_exec && type != et_dyn)
        return error("'{}' is an ELF file but not an executable (type {})", path, type);
    ElfImage image;
    image.is64 = is64;
    image.entry = get_word(file, at.entry, is64);
    TRY(read_segments(image, file, at, path));
    image.first = UINT64_MAX;
    for (ElfSegment const& s : image.segments) {
        image.first = std::min(image.first, s.physical);
        image.end = std::max(image.end, s.physical + s.memory_size);
    }
    read_sections(image, file, at);
    return image;
}

} // namespace

std::uint64_t ElfImage::entry_physical() const {
    auto inside = [this](std::uint64_t base, std::uint64_t size) { return entry >= base && entry - base < size; };
    for (ElfSegment const& s : segments)
        if (inside(s.physical, s.memory_size)) return entry;
    for (ElfSegment const& s : segments)
        if (inside(s.virtual_address, s.memory_size)) return s.physical + (entry - s.virtual_address);
    return entry;
}

bool is_x86_elf(File file) {
    static constexpr std::uint8_t magic[] = {0x7f, 'E', 'L', 'F'};
    constexpr std::uint8_t little_endian = 1, class32 = 1, class64 = 2;
    if (file.size() < 20 || std::memcmp(file.data(), magic, 4) != 0 || file[5] != little_endian) return false;
    std::uint16_t const machine = get<std::uint16_t>(file, 18);
    return (machine == em_386 || machine == em_x86_64) && (file[4] == class32 || file[4] == class64);
}

Result<ElfImage> parse_elf_image(File file, std::string const& path) {
    VMM_ASSERT(is_x86_elf(file));
    return parse(file, file[4] == 2, path);
}

namespace {
// Linkers put the ELF headers into the page before the first section, so a kernel linked at 1 MiB often has a segment
// that begins in the BIOS area. Nobody needs that part, and it cannot be loaded: it is cut off.
ElfSegment without_bios_area(ElfSegment s) {
    constexpr GuestPhys bios_area = 0xa0000;
    if (s.physical < bios_area || s.physical >= high_memory_base || s.physical + s.memory_size <= high_memory_base)
        return s;
    std::uint64_t const cut = high_memory_base - s.physical, file_cut = std::min(cut, s.file_size);
    return {s.file_offset + file_cut, s.file_size - file_cut, s.memory_size - cut, high_memory_base,
            s.virtual_address + cut};
}
} // namespace

Result<void> place_elf_segments(LoadContext& context, ElfImage const& image, File file, std::string const& path) {
    // Segments may share pages and even overlap; RAM is checked before the first is written and taken as a whole.
    std::vector<ElfSegment> segments;
    for (ElfSegment const& s : image.segments) segments.push_back(without_bios_area(s));
    for (ElfSegment const& s : segments)
        if (!context.planner.is_free(s.physical, s.memory_size))
            return error("kernel '{}' has a segment of {} bytes at {:#x}, where the guest has no free RAM ({} MiB in "
                         "all); give it more memory (-m)",
                         path, s.memory_size, s.physical,
                         (context.platform.ram_below_4g + context.platform.ram_above_4g) / MiB);
    for (ElfSegment const& s : segments) {
        TRY(context.write(s.physical, file.subspan(s.file_offset, s.file_size), "the kernel"));
        TRY(context.clear(s.physical + s.file_size, s.memory_size - s.file_size, "the kernel"));
        context.planner.remove(s.physical, s.memory_size);
    }
    return {};
}

} // namespace vmm::firmware
