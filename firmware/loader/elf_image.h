// ElfImage: the program headers, notes and sections of an x86 ELF executable (System V gABI).
#pragma once
#include "firmware/loader/load_context.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vmm::firmware {

// One PT_LOAD segment; file_offset + file_size is inside the file.
struct ElfSegment {
    std::uint64_t file_offset, file_size, memory_size;
    GuestPhys physical;
    std::uint64_t virtual_address;
};

struct ElfImage {
    bool is64 = false;
    std::uint64_t entry = 0; // as in the header; see entry_physical
    std::vector<ElfSegment> segments;
    std::optional<std::uint32_t> pvh_entry; // XEN_ELFNOTE_PHYS32_ENTRY
    GuestPhys first = 0, end = 0;           // physical span of all segments

    // Section headers as they lie in the file, for multiboot's symbol information; empty when absent or damaged.
    std::span<std::uint8_t const> section_headers;
    std::uint32_t section_count = 0, section_entry_size = 0, section_names = 0;

    static constexpr std::uint32_t max_program_headers = 128; // more is taken for damage

    // The header's entry, moved to where its segment is loaded when it is a virtual address.
    std::uint64_t entry_physical() const;
};

// Whether `file` is an ELF file for i386 or x86-64.
bool is_x86_elf(std::span<std::uint8_t const> file);
// For a file that is one. An error when it cannot be loaded (damaged, cut off, not an executable). The image refers to
// `file`.
Result<ElfImage> parse_elf_image(std::span<std::uint8_t const> file, std::string const& path);

// Copies the segments to their physical addresses, zeroes the rest of each, and takes that RAM.
Result<void> place_elf_segments(LoadContext& context, ElfImage const& image, std::span<std::uint8_t const> file,
                                std::string const& path);

} // namespace vmm::firmware
