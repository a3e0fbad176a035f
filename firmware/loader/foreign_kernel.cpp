#include "firmware/loader/foreign_kernel.h"

#include "vmm/base/endian.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace vmm::firmware {

namespace {

struct Magic {
    std::uint32_t offset;
    std::string_view bytes;
    char const* is;   // completes "'x' is ..."
    char const* hint; // completes the sentence after that
};
using namespace std::string_view_literals;
constexpr char const* this_machine = ", this machine is x86-64";
constexpr Magic magics[] = {
    {0x38, "ARM\x64"sv, "an ARM64 Linux Image", this_machine},
    {0x24, "\x18\x28\x6f\x01"sv, "an ARM Linux zImage", this_machine},
    {0x38, "RSC\x05"sv, "a RISC-V Linux Image", this_machine},
    {0, "\x27\x05\x19\x56"sv, "a U-Boot uImage", "; extract the kernel inside it"},
    {0, "\x1f\x8b"sv, "gzip-compressed", "; uncompress it first (zcat)"},
    {0,
     "\xfd"
     "7zXZ"sv,
     "xz-compressed", "; uncompress it first (xzcat)"},
    {0, "\x28\xb5\x2f\xfd"sv, "zstd-compressed", "; uncompress it first (zstdcat)"},
    {0, "070701"sv, "a cpio archive", "; use it with -initrd"},
    {0, "QFI\xfb"sv, "a qcow disk image", "; use it with -hda"},
    {0x8001, "CD001"sv, "an ISO 9660 CD image", "; use it with -cdrom"},
};

struct ElfMachine {
    std::uint16_t id;
    char const* name;
};
// System V gABI, e_machine.
constexpr ElfMachine elf_machines[] = {
    {2, "SPARC"},      {3, "i386"},    {4, "68000"},   {8, "MIPS"},     {15, "PA-RISC"},    {20, "PowerPC"},
    {21, "PowerPC64"}, {22, "S390"},   {40, "ARM"},    {42, "SuperH"},  {43, "SPARC V9"},   {50, "IA-64"},
    {62, "x86-64"},    {94, "Xtensa"}, {183, "ARM64"}, {243, "RISC-V"}, {258, "LoongArch"}, {0x9026, "Alpha"},
};

std::uint16_t elf_machine(std::span<std::uint8_t const> file) {
    bool const big = file[5] == 2;
    return big ? std::uint16_t(file[18] << 8 | file[19]) : std::uint16_t(file[19] << 8 | file[18]);
}

bool has(std::span<std::uint8_t const> file, std::size_t offset, std::string_view bytes) {
    return file.size() >= offset + bytes.size() && std::memcmp(&file[offset], bytes.data(), bytes.size()) == 0;
}

} // namespace

char const* elf_machine_name(std::uint16_t machine) {
    for (ElfMachine const& m : elf_machines)
        if (m.id == machine) return m.name;
    return "";
}

Error explain_foreign_kernel(std::span<std::uint8_t const> file, std::string const& path) {
    if (file.empty()) return error("'{}': invalid kernel header: the file is empty", path);
    for (Magic const& m : magics)
        if (has(file, m.offset, m.bytes)) return error("'{}' is {}{}", path, m.is, m.hint);
    if (has(file, 0,
            "\x7f"
            "ELF") &&
        file.size() >= 20) {
        std::uint16_t const machine = elf_machine(file);
        if (machine != 3 && machine != 62) {
            std::string name = elf_machine_name(machine);
            if (name.empty()) name = fmt::format("machine {}", machine);
            return error("'{}' is an ELF file for {}{}", path, name, this_machine);
        }
    }
    if (has(file, 0, "MZ"))
        return error("'{}' is an EFI or DOS program without a Linux kernel header; boot it under UEFI firmware "
                     "(-bios OVMF.fd)",
                     path);
    if (has(file, 510, "\x55\xaa"))
        return error("'{}': invalid kernel header; it has a boot sector signature: a disk image is used with -hda",
                     path);
    return error("'{}': invalid kernel header: not a Linux bzImage (boot protocol 2.00 or later), nor a multiboot 1 or "
                 "2 image, nor an x86 ELF file",
                 path);
}

} // namespace vmm::firmware
