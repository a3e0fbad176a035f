// The PVH boot protocol: an ELF kernel entered in flat 32-bit mode with hvm_start_info in ebx (Xen:
// docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h).
#pragma once
#include "firmware/loader/elf_image.h"
#include "firmware/loader/linux_boot.h"

namespace vmm::firmware {

// `image` has a pvh_entry. The initrd becomes module 0.
Result<BootEntry> load_pvh(LoadContext& context, ElfImage const& image, std::span<std::uint8_t const> file,
                           KernelCompanions const& with);

// An ELF kernel without any boot protocol's mark, entered as a Linux vmlinux is: at its entry point, in 64-bit or flat
// 32-bit mode by its class, with Linux boot_params in (r|e)si.
Result<BootEntry> load_bare_elf(LoadContext& context, ElfImage const& image, std::span<std::uint8_t const> file,
                                KernelCompanions const& with);

} // namespace vmm::firmware
