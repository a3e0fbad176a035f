#include "firmware/loader/linux_boot.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <cstring>

namespace vmm::firmware {

namespace {

// Offsets in boot_params (zero-page.rst); those from 0x1f1 on are the setup header's.
namespace bp {
enum : std::uint32_t {
    orig_x = 0x00,
    orig_y = 0x01,
    ext_mem_k = 0x02,
    video_page = 0x04,
    video_mode = 0x06,
    video_cols = 0x07,
    ega_bx = 0x0a,
    video_lines = 0x0e,
    is_vga = 0x0f,
    video_points = 0x10,
    old_cmdline_magic = 0x20,
    old_cmdline_offset = 0x22,
    acpi_rsdp_addr = 0x70,
    alt_mem_k = 0x1e0,
    e820_entries = 0x1e8,
    setup_header = 0x1f1,
    vid_mode = 0x1fa,
    boot_flag = 0x1fe,
    header_magic = 0x202,
    version = 0x206,
    type_of_loader = 0x210,
    loadflags = 0x211,
    code32_start = 0x214,
    ramdisk_image = 0x218,
    ramdisk_size = 0x21c,
    heap_end_ptr = 0x224,
    cmd_line_ptr = 0x228,
    kernel_alignment = 0x230,
    e820_table = 0x2d0,
    size = 0x1000
};
} // namespace bp
constexpr std::uint32_t e820_entry_size = 20, e820_max_entries = 128;
constexpr std::uint8_t loader_unassigned = 0xff; // "undefined" in the table of loader ids
constexpr std::uint8_t can_use_heap = 0x80;
constexpr std::uint16_t old_cmdline_present = 0xa33f;
constexpr std::uint16_t normal_vga = 0xffff;
constexpr std::uint32_t max_command_line = 64 * KiB - bp::size;

using Page = std::array<std::uint8_t, bp::size>;

// Everything that does not come from the kernel image.
void describe_machine(LoadContext const& context, Page& page) {
    if (context.platform.vga_text) {
        page[bp::orig_x] = 0;
        page[bp::orig_y] = 0;
        page[bp::video_mode] = 3;
        page[bp::video_cols] = 80;
        store_le(&page[bp::ega_bx], std::uint16_t(3)); // colour, 256 KiB
        page[bp::video_lines] = 25;
        page[bp::is_vga] = 1;
        store_le(&page[bp::video_points], std::uint16_t(16));
    }
    std::uint64_t const above_1m_kib = (context.platform.ram_below_4g - high_memory_base) / KiB;
    store_le(&page[bp::ext_mem_k], std::uint16_t(std::min<std::uint64_t>(above_1m_kib, 0xffff)));
    store_le(&page[bp::alt_mem_k], std::uint32_t(above_1m_kib));
    store_le(&page[bp::acpi_rsdp_addr], context.platform.rsdp);

    std::uint32_t count = 0;
    for (MemoryMapEntry const& e : context.map) {
        if (count == e820_max_entries) break;
        std::uint8_t* to = &page[bp::e820_table + e820_entry_size * count++];
        store_le(to, e.base);
        store_le(to + 8, e.size);
        store_le(to + 16, std::uint32_t(e.kind));
    }
    page[bp::e820_entries] = std::uint8_t(count);
}

// boot_params and behind it, in the same 64 KiB as protocols before 2.02 want it, the command line.
Result<GuestPhys> write_boot_params(LoadContext& context, Page& page, std::string const& command_line) {
    std::uint64_t const total = bp::size + command_line.size() + 1;
    auto at = context.planner.take_highest(total, page_size, ebda_base);
    if (!at) at = context.planner.take_lowest(total, page_size, high_memory_base);
    if (!at) return error("guest RAM has no room for the Linux boot parameters; give the guest more memory (-m)");
    store_le(&page[bp::cmd_line_ptr], std::uint32_t(*at + bp::size));
    TRY(context.write(*at, page, "the Linux boot parameters"));
    auto const* text = reinterpret_cast<std::uint8_t const*>(command_line.c_str());
    TRY(context.write(*at + bp::size, {text, command_line.size() + 1}, "the kernel command line"));
    return *at;
}

Result<void> add_initrd(LoadContext& context, Page& page, KernelCompanions const& with, GuestPhys end) {
    if (!with.initrd || with.initrd->size() == 0) return {};
    GuestPhys const at = TRY(context.place_initrd(*with.initrd, end));
    store_le(&page[bp::ramdisk_image], std::uint32_t(at));
    store_le(&page[bp::ramdisk_size], std::uint32_t(with.initrd->size()));
    return {};
}

// Where the protected-mode code goes: where the kernel wants it. Loading a relocatable kernel lower gains nothing: it
// moves itself up to its preferred address (boot.rst, pref_address) and needs init_size bytes from there.
Result<GuestPhys> place_payload(LoadContext& context, LinuxImage const& image, std::uint64_t payload_size,
                                std::string const& path) {
    std::uint64_t const need = std::max<std::uint64_t>(image.init_size, payload_size);
    GuestPhys const wanted = image.relocatable ? image.preferred_address : image.code32_start;
    if (wanted >= high_memory_base && context.planner.is_free(wanted, need)) {
        TRY(context.planner.take(wanted, need, "the kernel"));
        return wanted;
    }
    return error("kernel '{}' needs {} MiB of RAM at {:#x} and the guest has {} MiB in all; give it more memory (-m)",
                 path, div_ceil(need, MiB), wanted,
                 (context.platform.ram_below_4g + context.platform.ram_above_4g) / MiB);
}

Result<void> check_command_line(std::string const& text, std::uint64_t limit, std::string const& path) {
    limit = std::min<std::uint64_t>(limit, max_command_line - 1);
    if (text.size() > limit)
        return error("-append has {} characters, kernel '{}' takes at most {}", text.size(), path, limit);
    return {};
}

} // namespace

Result<BootEntry> load_linux_image(LoadContext& context, LinuxImage const& image, std::span<std::uint8_t const> head,
                                   FileSource const& file, KernelCompanions const& with) {
    TRY(check_command_line(with.command_line, image.cmdline_size, with.kernel_path));
    std::uint64_t const payload_size = file.size() - image.payload_offset;
    GuestPhys const load = TRY(place_payload(context, image, payload_size, with.kernel_path));
    TRY(context.copy(load, file, image.payload_offset, payload_size, "the kernel"));

    Page page{};
    std::memcpy(&page[bp::setup_header], &head[bp::setup_header], image.header_end - bp::setup_header);
    describe_machine(context, page);
    store_le(&page[bp::vid_mode], normal_vga);
    page[bp::type_of_loader] = loader_unassigned;
    store_le(&page[bp::code32_start], std::uint32_t(load));
    store_le(&page[bp::ramdisk_image], std::uint32_t(0));
    store_le(&page[bp::ramdisk_size], std::uint32_t(0));
    if (image.protocol >= 0x201) {
        page[bp::loadflags] |= can_use_heap;
        store_le(&page[bp::heap_end_ptr], std::uint16_t(0xfe00));
    }
    if (image.protocol < 0x202) {
        store_le(&page[bp::old_cmdline_magic], old_cmdline_present);
        store_le(&page[bp::old_cmdline_offset], std::uint16_t(bp::size));
    }
    TRY(add_initrd(context, page, with, std::uint64_t(image.initrd_addr_max) + 1));

    GuestPhys const params = TRY(write_boot_params(context, page, with.command_line));
    BootEntry entry = image.entry64 ? TRY(enter_long64(context, load + LinuxImage::entry64_offset, linux_selectors))
                                    : TRY(enter_protected32(context, load, linux_selectors));
    entry.gpr[boot_rsi] = params;
    return entry;
}

Result<GuestPhys> place_bare_boot_params(LoadContext& context, KernelCompanions const& with) {
    constexpr std::uint64_t elf_command_line = 2047, elf_initrd_end = 0x80000000; // what every current kernel takes
    TRY(check_command_line(with.command_line, elf_command_line, with.kernel_path));
    Page page{};
    describe_machine(context, page);
    store_le(&page[bp::vid_mode], normal_vga);
    store_le(&page[bp::boot_flag], std::uint16_t(0xaa55));
    std::memcpy(&page[bp::header_magic], "HdrS", 4);
    store_le(&page[bp::version], std::uint16_t(0x20c));
    page[bp::type_of_loader] = loader_unassigned;
    store_le(&page[bp::kernel_alignment], std::uint32_t(0x1000000));
    TRY(add_initrd(context, page, with, elf_initrd_end));
    return write_boot_params(context, page, with.command_line);
}

} // namespace vmm::firmware
