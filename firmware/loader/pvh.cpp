#include "firmware/loader/pvh.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <cstring>

namespace vmm::firmware {

namespace {
struct StartInfo { // struct hvm_start_info, version 1
    le32 magic, version, flags, module_count;
    le64 modules, command_line, rsdp, memory_map;
    le32 memory_map_entries, reserved;
};
static_assert(sizeof(StartInfo) == 56);
struct Module { // struct hvm_modlist_entry
    le64 address, size, command_line, reserved;
};
static_assert(sizeof(Module) == 32);
struct MapEntry { // struct hvm_memmap_table_entry
    le64 base, size;
    le32 kind, reserved;
};
static_assert(sizeof(MapEntry) == 24);
constexpr std::uint32_t start_magic = 0x336ec578;

template <class T> std::span<std::uint8_t const> bytes_of(T const& object) {
    return {reinterpret_cast<std::uint8_t const*>(&object), sizeof object};
}
} // namespace

Result<BootEntry> load_pvh(LoadContext& context, ElfImage const& image, std::span<std::uint8_t const> file,
                           KernelCompanions const& with) {
    TRY(place_elf_segments(context, image, file, with.kernel_path));
    StartInfo info{};
    info.magic = start_magic;
    info.version = 1;
    info.rsdp = context.platform.rsdp;
    info.command_line = TRY(context.place_string(with.command_line, "the kernel command line"));
    if (with.initrd && with.initrd->size() != 0) {
        Module module{};
        module.address = TRY(context.place_initrd(*with.initrd, 4 * GiB));
        module.size = with.initrd->size();
        info.module_count = 1;
        info.modules = TRY(context.place(bytes_of(module), 8, "the module list"));
    }
    Bytes map;
    for (MemoryMapEntry const& e : context.map) {
        MapEntry entry{};
        entry.base = e.base;
        entry.size = e.size;
        entry.kind = std::uint32_t(e.kind);
        auto const bytes = bytes_of(entry);
        map.insert(map.end(), bytes.begin(), bytes.end());
    }
    info.memory_map_entries = std::uint32_t(context.map.size());
    info.memory_map = TRY(context.place(map, 8, "the memory map"));

    BootEntry entry = TRY(enter_protected32(context, *image.pvh_entry, plain_selectors));
    entry.gpr[boot_rbx] = TRY(context.place(bytes_of(info), 8, "the PVH start info"));
    return entry;
}

Result<BootEntry> load_bare_elf(LoadContext& context, ElfImage const& image, std::span<std::uint8_t const> file,
                                KernelCompanions const& with) {
    TRY(place_elf_segments(context, image, file, with.kernel_path));
    GuestPhys const params = TRY(place_bare_boot_params(context, with));
    BootEntry entry = image.is64 ? TRY(enter_long64(context, image.entry_physical(), linux_selectors))
                                 : TRY(enter_protected32(context, image.entry_physical(), linux_selectors));
    entry.gpr[boot_rsi] = params;
    return entry;
}

} // namespace vmm::firmware
