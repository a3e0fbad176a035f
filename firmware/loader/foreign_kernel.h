// Naming what a file is that cannot be booted as a kernel here.
#pragma once
#include "vmm/base/error.h"

#include <cstdint>
#include <span>
#include <string>

namespace vmm::firmware {

// The message for a kernel no loader took: another architecture by name, a compressed file, a disk image, or the list
// of formats that were tried.
Error explain_foreign_kernel(std::span<std::uint8_t const> file, std::string const& path);

// "ARM64" for EM_AARCH64 and so on; empty for machines we have no name for.
char const* elf_machine_name(std::uint16_t machine);

} // namespace vmm::firmware
