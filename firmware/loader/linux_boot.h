// Placing a Linux kernel: boot_params, command line, initrd (Documentation/arch/x86/{boot,zero-page}.rst).
#pragma once
#include "firmware/loader/linux_image.h"
#include "firmware/loader/load_context.h"

namespace vmm::firmware {

// What the user gave besides the kernel.
struct KernelCompanions {
    std::string const& kernel_path;
    std::string const& command_line;
    FileSource const* initrd = nullptr; // may be null
};

// Loads a bzImage, whose setup header `head` contains: enters it at its 64-bit entry point, or at the 32-bit one when
// it has no other.
Result<BootEntry> load_linux_image(LoadContext& context, LinuxImage const& image, std::span<std::uint8_t const> head,
                                   FileSource const& file, KernelCompanions const& with);

// Makes boot_params for a Linux kernel whose code is in memory already (an ELF vmlinux without PVH note) and returns
// its address, to be passed in (r|e)si.
Result<GuestPhys> place_bare_boot_params(LoadContext& context, KernelCompanions const& with);

} // namespace vmm::firmware
