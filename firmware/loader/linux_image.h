// LinuxImage: the headers of an x86 Linux bzImage (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
#pragma once
#include "vmm/base/result.h"

#include <cstdint>
#include <span>
#include <string>

namespace vmm::firmware {

// What the loader needs of the setup header, with the defaults the protocol gives to versions that lack a field.
struct LinuxImage {
    std::uint16_t protocol = 0;       // 0x0200 and later
    std::uint32_t payload_offset = 0; // file offset of the protected-mode code, which reaches to the end of the file
    std::uint32_t header_end = 0;     // file offset past the setup header (which starts at 0x1f1)
    std::uint32_t code32_start = 0x100000;
    std::uint32_t initrd_addr_max = 0x37ffffff;
    std::uint32_t cmdline_size = 255; // without the final zero
    bool relocatable = false;
    std::uint64_t preferred_address = 0x100000;
    std::uint64_t init_size = 0; // bytes needed at the load address; 0 = not told
    bool entry64 = false;        // has a 64-bit entry point at 0x200

    static constexpr std::uint32_t entry64_offset = 0x200;
};

// Whether `file` carries the setup header's marks.
bool is_linux_image(std::span<std::uint8_t const> file);
// For a file that is one, of `size` bytes; `head` is its beginning, 4 KiB or all of it. An error when it cannot be used
// (too old, cut off).
Result<LinuxImage> parse_linux_image(std::span<std::uint8_t const> head, std::uint64_t size, std::string const& path);

} // namespace vmm::firmware
