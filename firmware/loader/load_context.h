// LoadContext: one loading of a kernel into guest memory; and the CPU modes kernels are entered in.
#pragma once
#include "firmware/loader/boot_entry.h"
#include "firmware/loader/boot_platform.h"
#include "firmware/loader/file_source.h"

#include <span>

namespace vmm::firmware {

// Shared by the loaders of all formats while one kernel is placed; lives as long as that call.
struct LoadContext {
    AddressSpace& memory;
    BootPlatform const& platform;
    std::vector<MemoryMapEntry> map; // what the kernel is told
    RamPlanner planner;

    LoadContext(AddressSpace& to, BootPlatform const& of);

    // Copies to guest memory; an error naming `what` when there is no RAM there.
    Result<void> write(GuestPhys at, std::span<std::uint8_t const> bytes, char const* what);
    // The same for what `file` has at [offset, offset + size), piece by piece.
    Result<void> copy(GuestPhys at, FileSource const& file, std::uint64_t offset, std::uint64_t size, char const* what);
    // Zero-fills [at, at+size).
    Result<void> clear(GuestPhys at, std::uint64_t size, char const* what);
    // Takes RAM for a small structure below 640 KiB (or, when that is full, anywhere above 1 MiB) and copies it there.
    Result<GuestPhys> place(std::span<std::uint8_t const> bytes, std::uint64_t alignment, char const* what);
    // The same for a zero-terminated string.
    Result<GuestPhys> place_string(std::string const& text, char const* what);
    // Reads `initrd`, takes the highest page-aligned RAM that ends at or below `end` and starts at or above 1 MiB, and
    // copies it there. The error for too large a file gives the figures.
    Result<GuestPhys> place_initrd(FileSource const& initrd, GuestPhys end);
};

// Selectors of the flat segments a kernel is entered with. Linux prescribes 0x10/0x18; others prescribe none.
struct FlatSelectors {
    std::uint16_t code, data;
};
inline constexpr FlatSelectors linux_selectors{0x10, 0x18};
inline constexpr FlatSelectors plain_selectors{0x08, 0x10};

// Flat 32-bit protected mode without paging, a GDT and a small stack in guest memory; rip = `entry`.
Result<BootEntry> enter_protected32(LoadContext& context, std::uint64_t entry, FlatSelectors selectors);
// 64-bit mode with the low 4 GiB mapped to themselves in 2 MiB pages; rip = `entry`.
Result<BootEntry> enter_long64(LoadContext& context, std::uint64_t entry, FlatSelectors selectors);

// What a BIOS leaves in its data area (0x400) and EBDA: memory size, serial ports, text mode 3.
Result<void> write_bios_data(LoadContext& context);

} // namespace vmm::firmware
