// Multiboot 1 and 2 kernels (GNU Multiboot Specification 0.6.96 and 2.0), entered in flat 32-bit mode.
#pragma once
#include "firmware/loader/elf_image.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vmm::firmware {

// What goes into memory beside a multiboot kernel.
struct MultibootCompanions {
    std::string const& kernel_path;
    std::string const& arguments;                 // of `-append`
    std::vector<FileSource> const& modules;       // in order
    std::vector<std::string> const& module_lines; // each module's "file args", beside `modules`
};

// File offset of a valid header (magic and checksum), or nothing.
std::optional<std::uint32_t> find_multiboot1_header(std::span<std::uint8_t const> file);
std::optional<std::uint32_t> find_multiboot2_header(std::span<std::uint8_t const> file);

// `header` is what the find function gave for `file`.
Result<BootEntry> load_multiboot1(LoadContext& context, std::span<std::uint8_t const> file, std::uint32_t header,
                                  MultibootCompanions const& with);
Result<BootEntry> load_multiboot2(LoadContext& context, std::span<std::uint8_t const> file, std::uint32_t header,
                                  MultibootCompanions const& with);

// A kernel without (usable) ELF headers that says itself how it is to be loaded: multiboot 1's "a.out kludge" fields
// and multiboot 2's address tag. The addresses are physical.
struct FlatLoad {
    std::uint32_t header_address, load_address, load_end, bss_end; // ends: 0 = to the end of the file; none
};
Result<void> place_flat(LoadContext& context, std::span<std::uint8_t const> file, std::uint32_t header_offset,
                        FlatLoad const& load, std::string const& path);

// Where the modules were put.
struct PlacedModule {
    std::uint32_t start, end; // end is exclusive
    std::string const* line;
};
// Puts each module page-aligned at the lowest free RAM above 1 MiB.
Result<std::vector<PlacedModule>> place_modules(LoadContext& context, MultibootCompanions const& with);

// The kernel's ELF section headers, with the symbol and string tables loaded and their addresses filled in.
struct PlacedSections {
    Bytes headers;
    std::uint32_t count, entry_size, names;
};
// Nothing when there are none, or when no RAM is left for the tables: symbols are a convenience.
std::optional<PlacedSections> place_sections(LoadContext& context, ElfImage const& image,
                                             std::span<std::uint8_t const> file);

inline constexpr char const* boot_loader_name = "vmm";

} // namespace vmm::firmware
