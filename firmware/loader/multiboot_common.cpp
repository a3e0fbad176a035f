// What multiboot 1 and 2 share.
#include "firmware/loader/multiboot.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>

namespace vmm::firmware {

Result<void> place_flat(LoadContext& context, std::span<std::uint8_t const> file, std::uint32_t header_offset,
                        FlatLoad const& load, std::string const& path) {
    std::uint32_t const load_address =
        load.load_address == UINT32_MAX ? load.header_address - header_offset : load.load_address;
    if (load.header_address < load_address || load.header_address - load_address > header_offset)
        return error("'{}' has a damaged multiboot header: header address {:#x}, load address {:#x}", path,
                     load.header_address, load_address);
    std::uint64_t const from = header_offset - (load.header_address - load_address);
    std::uint64_t const size = load.load_end != 0 ? std::uint64_t(load.load_end) - load_address : file.size() - from;
    if ((load.load_end != 0 && load.load_end < load_address) || size > file.size() - from)
        return error(
            "'{}' is a multiboot kernel that is cut off: {} bytes are to be loaded from offset {}, the file has {}",
            path, size, from, file.size());
    std::uint64_t const end = load_address + size, bss_end = std::max<std::uint64_t>(end, load.bss_end);
    TRY(context.planner.take(load_address, bss_end - load_address, "the kernel"));
    TRY(context.write(load_address, file.subspan(from, size), "the kernel"));
    return context.clear(end, bss_end - end, "the kernel");
}

Result<std::vector<PlacedModule>> place_modules(LoadContext& context, MultibootCompanions const& with) {
    std::vector<PlacedModule> placed;
    for (std::size_t i = 0; i < with.modules.size(); ++i) {
        FileSource const& module = with.modules[i];
        auto const at = context.planner.take_lowest(module.size(), page_size, high_memory_base);
        if (!at)
            return error(
                "multiboot module '{}' has {} bytes but the guest has room for {} (RAM {} MiB); give the guest "
                "more memory (-m)",
                module.path(), module.size(), context.planner.largest_free(high_memory_base, 4 * GiB),
                (context.platform.ram_below_4g + context.platform.ram_above_4g) / MiB);
        Bytes const bytes = TRY(module.read());
        TRY(context.write(*at, bytes, "a multiboot module"));
        placed.push_back({std::uint32_t(*at), std::uint32_t(*at + module.size()), &with.module_lines[i]});
    }
    return placed;
}

std::optional<PlacedSections> place_sections(LoadContext& context, ElfImage const& image,
                                             std::span<std::uint8_t const> file) {
    if (image.section_count == 0) return std::nullopt;
    constexpr std::uint32_t symbol_table = 2, string_table = 3;
    constexpr std::uint64_t max_table = 64 * MiB;
    // Offsets of sh_addr, sh_offset and sh_size.
    std::uint32_t const address = image.is64 ? 16 : 12, offset = image.is64 ? 24 : 16, size = image.is64 ? 32 : 20;
    auto word = [&](std::uint8_t const* p) {
        return image.is64 ? load_le<std::uint64_t>(p) : std::uint64_t(load_le<std::uint32_t>(p));
    };
    PlacedSections result{Bytes(image.section_headers.begin(), image.section_headers.end()), image.section_count,
                          image.section_entry_size, image.section_names};
    for (std::uint32_t i = 0; i < image.section_count; ++i) {
        std::uint8_t* const header = &result.headers[std::size_t(i) * image.section_entry_size];
        std::uint32_t const type = load_le<std::uint32_t>(header + 4);
        if ((type != symbol_table && type != string_table) || word(header + address) != 0) continue;
        std::uint64_t const from = word(header + offset), bytes = word(header + size);
        if (bytes == 0 || bytes > max_table || from > file.size() || bytes > file.size() - from) continue;
        auto const at = context.planner.take_lowest(bytes, 16, high_memory_base);
        if (!at || !context.write(*at, file.subspan(from, bytes), "a symbol table").ok()) return std::nullopt;
        if (image.is64)
            store_le(header + address, std::uint64_t(*at));
        else
            store_le(header + address, std::uint32_t(*at));
    }
    return result;
}

} // namespace vmm::firmware
