#include "firmware/loader/multiboot.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <cstring>

namespace vmm::firmware {

namespace {

constexpr std::uint32_t header_magic = 0x1badb002, entry_magic = 0x2badb002;
constexpr std::uint32_t search_bytes = 8192;
constexpr std::uint32_t has_addresses = 1 << 16, must_understand = 0xffff,
                        understood = 7; // page-aligned modules, memory information, video mode

struct Header { // section 3.1
    le32 magic, flags, checksum, header_address, load_address, load_end, bss_end, entry, mode_type, width, height,
        depth;
};
struct Info { // section 3.3
    le32 flags, mem_lower, mem_upper, boot_device, command_line, module_count, modules;
    le32 section_count, section_size, sections, section_names;
    le32 map_length, map, drives_length, drives, config_table, loader_name, apm_table;
    le32 vbe_control, vbe_mode_info;
    le16 vbe_mode, vbe_segment, vbe_offset, vbe_length;
    le64 framebuffer;
    le32 pitch, width, height;
    std::uint8_t bits_per_pixel, framebuffer_type;
    std::uint8_t colour_info[6];
};
static_assert(sizeof(Info) == 116);
enum : std::uint32_t {
    info_memory = 1 << 0,
    info_boot_device = 1 << 1,
    info_command_line = 1 << 2,
    info_modules = 1 << 3,
    info_elf_sections = 1 << 5,
    info_map = 1 << 6,
    info_loader_name = 1 << 9,
    info_framebuffer = 1 << 12
};
constexpr std::uint32_t first_hard_disk = 0x8000ffff; // BIOS drive 0x80, no partition
constexpr std::uint8_t framebuffer_ega_text = 2;

template <class T> std::span<std::uint8_t const> bytes_of(T const& object) {
    return {reinterpret_cast<std::uint8_t const*>(&object), sizeof object};
}

// Loads the kernel's code; its entry point and, for ELF, the image.
struct Loaded {
    std::uint64_t entry;
    std::optional<ElfImage> elf;
};
Result<Loaded> place_kernel(LoadContext& context, std::span<std::uint8_t const> file, std::uint32_t at,
                            Header const& header, std::string const& path) {
    if (header.flags & has_addresses) {
        TRY(place_flat(context, file, at, {header.header_address, header.load_address, header.load_end, header.bss_end},
                       path));
        return Loaded{header.entry, std::nullopt};
    }
    if (!is_x86_elf(file))
        return error("'{}' has a multiboot header without load addresses and is not an x86 ELF file", path);
    ElfImage image = TRY(parse_elf_image(file, path));
    TRY(place_elf_segments(context, image, file, path));
    return Loaded{image.entry_physical(), std::move(image)};
}

Result<void> add_modules(LoadContext& context, Info& info, MultibootCompanions const& with) {
    auto const modules = TRY(place_modules(context, with));
    if (modules.empty()) return {};
    Bytes list;
    for (PlacedModule const& m : modules) {
        struct {
            le32 start, end, line, reserved;
        } entry{m.start, m.end, std::uint32_t(TRY(context.place_string(*m.line, "a module's command line"))), 0u};
        auto const bytes = bytes_of(entry);
        list.insert(list.end(), bytes.begin(), bytes.end());
    }
    info.modules = std::uint32_t(TRY(context.place(list, 8, "the module list")));
    info.module_count = std::uint32_t(modules.size());
    return {};
}

Result<void> add_map(LoadContext& context, Info& info) {
    Bytes map;
    for (MemoryMapEntry const& e : context.map) {
        struct {
            le32 size;
            le64 base, length;
            le32 kind;
        } entry{20u, e.base, e.size, std::uint32_t(e.kind)};
        auto const bytes = bytes_of(entry);
        map.insert(map.end(), bytes.begin(), bytes.end());
    }
    info.map = std::uint32_t(TRY(context.place(map, 8, "the memory map")));
    info.map_length = std::uint32_t(map.size());
    return {};
}

void add_text_screen(Info& info) {
    info.flags = info.flags | info_framebuffer;
    info.framebuffer = std::uint64_t(0xb8000);
    info.pitch = 160u;
    info.width = 80u; // in characters
    info.height = 25u;
    info.bits_per_pixel = 16;
    info.framebuffer_type = framebuffer_ega_text;
}

} // namespace

std::optional<std::uint32_t> find_multiboot1_header(std::span<std::uint8_t const> file) {
    std::size_t const end = std::min<std::size_t>(file.size(), search_bytes);
    for (std::uint32_t at = 0; at + 12 <= end; at += 4) {
        auto word = [&](std::uint32_t i) { return load_le<std::uint32_t>(&file[at + 4 * i]); };
        if (word(0) == header_magic && word(0) + word(1) + word(2) == 0) return at;
    }
    return std::nullopt;
}

Result<BootEntry> load_multiboot1(LoadContext& context, std::span<std::uint8_t const> file, std::uint32_t at,
                                  MultibootCompanions const& with) {
    Header header{};
    std::size_t const have = std::min(file.size() - at, sizeof header);
    std::memcpy(&header, &file[at], have);
    std::uint32_t const flags = header.flags;
    if (flags & must_understand & ~understood)
        return error("'{}' is a multiboot kernel that requires features no loader knows (flags {:#x})",
                     with.kernel_path, flags);
    if ((flags & has_addresses) && have < 32)
        return error("'{}' is a multiboot kernel that is cut off inside its header", with.kernel_path);
    Loaded const kernel = TRY(place_kernel(context, file, at, header, with.kernel_path));

    Info info{};
    info.flags = info_memory | info_boot_device | info_command_line | info_map | info_loader_name;
    if (!with.modules.empty()) info.flags = info.flags | info_modules;
    info.mem_lower = std::uint32_t(ebda_base / KiB);
    info.mem_upper = std::uint32_t((context.platform.ram_below_4g - high_memory_base) / KiB);
    info.boot_device = first_hard_disk;
    TRY(add_modules(context, info, with));
    if (kernel.elf)
        if (auto const sections = place_sections(context, *kernel.elf, file)) {
            info.sections = std::uint32_t(TRY(context.place(sections->headers, 8, "the section headers")));
            info.section_count = sections->count;
            info.section_size = sections->entry_size;
            info.section_names = sections->names;
            info.flags = info.flags | info_elf_sections;
        }
    TRY(add_map(context, info));
    if (context.platform.vga_text) add_text_screen(info);
    std::string line = with.kernel_path;
    if (!with.arguments.empty()) line += " " + with.arguments;
    info.command_line = std::uint32_t(TRY(context.place_string(line, "the kernel command line")));
    info.loader_name = std::uint32_t(TRY(context.place_string(boot_loader_name, "the boot loader name")));

    BootEntry entry = TRY(enter_protected32(context, kernel.entry, plain_selectors));
    entry.gpr[boot_rax] = entry_magic;
    entry.gpr[boot_rbx] = TRY(context.place(bytes_of(info), 8, "the multiboot information"));
    return entry;
}

} // namespace vmm::firmware
