// What a kernel loader must know of the machine, the memory map it tells the kernel, and the search for free RAM.
#pragma once
#include "vmm/memory/address_space.h"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace vmm::firmware {

inline constexpr GuestPhys ebda_base = 0x9fc00;         // top of conventional memory (639 KiB), as SeaBIOS leaves it
inline constexpr GuestPhys high_memory_base = 0x100000; // first byte above the BIOS area

// The machine as its loader sees it. RAM lies at 0..ram_below_4g and 4 GiB..4 GiB+ram_above_4g; 0xc0000..0xfffff must
// be writable while loading and read back as RAM afterwards (PAM).
struct BootPlatform {
    std::uint64_t ram_below_4g = 0; // bytes
    std::uint64_t ram_above_4g = 0;
    GuestPhys rsdp = 0;                                     // ACPI root pointer, 0 without ACPI
    std::vector<AddressRange> acpi_tables;                  // inside RAM; never given to the kernel as usable
    bool vga_text = true;                                   // a VGA adapter stands in text mode 3
    std::array<std::uint16_t, 4> com_ports{0x3f8, 0, 0, 0}; // I/O bases of the serial ports; 0 = absent
};

// Types of the BIOS call INT 15h E820h, shared by Linux, multiboot and PVH.
enum class MemoryKind : std::uint32_t { ram = 1, reserved = 2, acpi_reclaimable = 3, acpi_nvs = 4 };
struct MemoryMapEntry {
    GuestPhys base;
    std::uint64_t size; // > 0
    MemoryKind kind;
};

// The map a BIOS would report: sorted, without overlaps.
std::vector<MemoryMapEntry> memory_map(BootPlatform const& platform);

// Keeps account of which RAM below 4 GiB is still free while a kernel and its companions are placed. Ranges are taken
// for good.
class RamPlanner {
public:
    // Free at first: all usable RAM below 4 GiB of `map`, except the first page (vectors and BIOS data).
    explicit RamPlanner(std::vector<MemoryMapEntry> const& map);

    // Takes exactly [base, base+size); an error when it is not all free, saying so in terms of `what`.
    Result<void> take(GuestPhys base, std::uint64_t size, char const* what);
    // Takes the lowest fitting range at or above `min` that ends below `end`; alignment is a power of two. Size 0 is
    // treated as 1.
    std::optional<GuestPhys> take_lowest(std::uint64_t size, std::uint64_t alignment, GuestPhys min,
                                         GuestPhys end = 4 * (std::uint64_t(1) << 30));
    // Takes the highest fitting range that ends at or below `end`.
    std::optional<GuestPhys> take_highest(std::uint64_t size, std::uint64_t alignment, GuestPhys end);
    // Takes whatever is free inside [base, base+size).
    void remove(GuestPhys base, std::uint64_t size) { cut(base, base + size); }
    // Whether [base, base+size) is free.
    bool is_free(GuestPhys base, std::uint64_t size) const;
    // Bytes of the largest free range between `min` and `end`.
    std::uint64_t largest_free(GuestPhys min, GuestPhys end) const;

private:
    struct Span {
        GuestPhys first, end; // end is exclusive and at most 4 GiB
    };
    void cut(GuestPhys first, GuestPhys end);
    std::vector<Span> free_; // sorted, disjoint, not empty
};

} // namespace vmm::firmware
