#include "firmware/loader/multiboot.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>

namespace vmm::firmware {

namespace {

using File = std::span<std::uint8_t const>;
constexpr std::uint32_t header_magic = 0xe85250d6, entry_magic = 0x36d76289;
constexpr std::uint32_t search_bytes = 32768, header_size = 16, architecture_i386 = 0;
constexpr std::uint16_t optional_tag = 1;

// Header tags, section 3.1.
enum HeaderTag : std::uint16_t {
    header_end = 0,
    information_request = 1,
    address = 2,
    entry_address = 3,
    console_flags = 4,
    framebuffer = 5,
    module_alignment = 6,
    efi_boot_services = 7,
    efi_i386_entry = 8,
    efi_amd64_entry = 9,
    relocatable = 10
};
// Information tags, section 3.6.
enum InfoTag : std::uint32_t {
    info_end = 0,
    info_command_line = 1,
    info_loader_name = 2,
    info_module = 3,
    info_basic_memory = 4,
    info_memory_map = 6,
    info_framebuffer = 8,
    info_elf_sections = 9,
    info_old_rsdp = 14,
    info_new_rsdp = 15,
    info_load_base = 21,
    info_last = 21
};

struct Relocation {
    std::uint32_t min, max, alignment, preference; // preference 2 = highest
};
struct Wishes { // what the header's tags ask for
    std::optional<FlatLoad> flat;
    std::optional<std::uint32_t> entry;
    std::optional<Relocation> relocation;
    bool console_required = false;
};

std::uint32_t word(File tag, std::size_t index) { return load_le<std::uint32_t>(&tag[8 + 4 * index]); }

// Every type the specification names counts as known, also those this machine has nothing to say about (EFI, network).
Result<void> check_request(File tag, bool needed, std::string const& path) {
    for (std::size_t i = 0; needed && 8 + 4 * i + 4 <= tag.size(); ++i)
        if (word(tag, i) > info_last)
            return error("'{}' is a multiboot 2 kernel that requires information of the unknown type {}", path,
                         word(tag, i));
    return {};
}

Result<void> read_tag(Wishes& wishes, std::uint16_t type, bool needed, File tag, std::string const& path) {
    static constexpr std::uint32_t least_size[] = {8, 8, 24, 12, 12, 20, 8, 8, 12, 12, 24};
    if (type < std::size(least_size) && tag.size() < least_size[type])
        return error("'{}' has a damaged multiboot 2 header: tag {} has {} bytes", path, type, tag.size());
    switch (type) {
    case information_request: return check_request(tag, needed, path);
    case address: wishes.flat = FlatLoad{word(tag, 0), word(tag, 1), word(tag, 2), word(tag, 3)}; return {};
    case entry_address: wishes.entry = word(tag, 0); return {};
    case console_flags: wishes.console_required = (word(tag, 0) & 1) != 0; return {};
    case relocatable:
        wishes.relocation = Relocation{word(tag, 0), word(tag, 1), word(tag, 2), word(tag, 3)};
        if (wishes.relocation->alignment != 0 && !is_power_of_two(wishes.relocation->alignment))
            return error("'{}' has a damaged multiboot 2 header: alignment {:#x}", path, wishes.relocation->alignment);
        return {};
    case framebuffer:       // a preference; the screen stays in text mode, as the framebuffer information says
    case module_alignment:  // modules always are
    case efi_boot_services: // these three concern EFI machines only
    case efi_i386_entry:
    case efi_amd64_entry: return {};
    default:
        if (!needed) return {};
        return error("'{}' is a multiboot 2 kernel that requires the unknown header tag {}", path, type);
    }
}

Result<Wishes> read_header(File file, std::uint32_t at, std::string const& path) {
    std::uint64_t const length = load_le<std::uint32_t>(&file[at + 8]);
    if (load_le<std::uint32_t>(&file[at + 4]) != architecture_i386)
        return error("'{}' is a multiboot 2 kernel for another architecture than x86", path);
    if (length < header_size || length > file.size() - at)
        return error("'{}' has a damaged multiboot 2 header: its length is {}", path, length);
    Wishes wishes;
    File tags = file.subspan(at + header_size, length - header_size);
    while (tags.size() >= 8) {
        std::uint16_t const type = load_le<std::uint16_t>(&tags[0]), flags = load_le<std::uint16_t>(&tags[2]);
        std::uint64_t const size = load_le<std::uint32_t>(&tags[4]);
        if (type == header_end) break;
        if (size < 8 || size > tags.size())
            return error("'{}' has a damaged multiboot 2 header: tag {} has {} bytes", path, type, size);
        TRY(read_tag(wishes, type, !(flags & optional_tag), tags.first(size), path));
        tags = tags.subspan(std::min<std::uint64_t>(align_up<std::uint64_t>(size, 8), tags.size()));
    }
    return wishes;
}

// Moves the image where the relocatable tag wants it. The distance moved; addresses wrap as the kernel's do.
Result<std::uint64_t> relocate(LoadContext& context, ElfImage& image, Relocation const& to, std::string const& path) {
    std::uint64_t const size = image.end - image.first, alignment = std::max<std::uint32_t>(to.alignment, 1);
    std::uint64_t const end = std::uint64_t(to.max) + 1;
    RamPlanner probe = context.planner; // the segments are taken one by one when they are placed
    GuestPhys const min = std::max<GuestPhys>(to.min, high_memory_base);
    auto at =
        to.preference == 2 ? probe.take_highest(size, alignment, end) : probe.take_lowest(size, alignment, min, end);
    if (!at || *at < min)
        return error("kernel '{}' needs {} bytes between {:#x} and {:#x}; give the guest more memory (-m)", path, size,
                     to.min, to.max);
    std::uint64_t const distance = *at - image.first;
    for (ElfSegment& s : image.segments) s.physical += distance;
    image.first += distance;
    image.end += distance;
    return distance;
}

// The information structure: a list of tags, each 8-byte aligned.
class InfoBuilder {
public:
    InfoBuilder() { bytes_.resize(8); }
    void begin(std::uint32_t type) {
        start_ = bytes_.size();
        u32(type);
        u32(0);
    }
    void end() {
        store_le(&bytes_[start_ + 4], std::uint32_t(bytes_.size() - start_));
        bytes_.resize(align_up<std::size_t>(bytes_.size(), 8));
    }
    void u8(std::uint8_t v) { bytes_.push_back(v); }
    void u16(std::uint16_t v) { u8(std::uint8_t(v)), u8(std::uint8_t(v >> 8)); }
    void u32(std::uint32_t v) { u16(std::uint16_t(v)), u16(std::uint16_t(v >> 16)); }
    void u64(std::uint64_t v) { u32(std::uint32_t(v)), u32(std::uint32_t(v >> 32)); }
    void raw(std::span<std::uint8_t const> v) { bytes_.insert(bytes_.end(), v.begin(), v.end()); }
    void string(std::string const& s) { raw({reinterpret_cast<std::uint8_t const*>(s.c_str()), s.size() + 1}); }
    Bytes const& finish() {
        begin(info_end);
        end();
        store_le(&bytes_[0], std::uint32_t(bytes_.size()));
        return bytes_;
    }

private:
    Bytes bytes_;
    std::size_t start_ = 0;
};

void add_memory(InfoBuilder& info, LoadContext const& context) {
    info.begin(info_basic_memory);
    info.u32(std::uint32_t(ebda_base / KiB));
    info.u32(std::uint32_t((context.platform.ram_below_4g - high_memory_base) / KiB));
    info.end();
    constexpr std::uint32_t entry_size = 24, entry_version = 0;
    info.begin(info_memory_map);
    info.u32(entry_size);
    info.u32(entry_version);
    for (MemoryMapEntry const& e : context.map) {
        info.u64(e.base);
        info.u64(e.size);
        info.u32(std::uint32_t(e.kind));
        info.u32(0);
    }
    info.end();
}

void add_text_screen(InfoBuilder& info) {
    constexpr std::uint8_t ega_text = 2;
    info.begin(info_framebuffer);
    info.u64(0xb8000);
    info.u32(160); // bytes a row
    info.u32(80);  // characters
    info.u32(25);
    info.u8(16);
    info.u8(ega_text);
    info.u16(0);
    info.end();
}

void add_rsdp(InfoBuilder& info, LoadContext& context) {
    std::array<std::uint8_t, 36> rsdp{};
    if (context.platform.rsdp == 0 || !context.memory.read_bytes(context.platform.rsdp, rsdp)) return;
    constexpr std::size_t old_size = 20, revision = 15;
    info.begin(info_old_rsdp);
    info.raw(std::span(rsdp).first(old_size));
    info.end();
    if (rsdp[revision] < 2) return;
    info.begin(info_new_rsdp);
    info.raw(rsdp);
    info.end();
}

struct Kernel {
    std::uint64_t entry = 0;
    std::uint64_t load_base = 0;
    std::optional<ElfImage> elf;
};

Result<Kernel> place_kernel(LoadContext& context, File file, std::uint32_t at, Wishes const& wishes,
                            std::string const& path) {
    Kernel kernel;
    if (wishes.flat) {
        if (!wishes.entry) return error("'{}' has a multiboot 2 address tag but no entry address tag", path);
        TRY(place_flat(context, file, at, *wishes.flat, path));
        kernel.entry = *wishes.entry;
        return kernel;
    }
    if (!is_x86_elf(file))
        return error("'{}' has a multiboot 2 header without an address tag and is not an x86 ELF file", path);
    kernel.elf = TRY(parse_elf_image(file, path));
    std::uint64_t distance = 0;
    std::uint64_t const entry = wishes.entry ? *wishes.entry : kernel.elf->entry_physical();
    if (wishes.relocation) distance = TRY(relocate(context, *kernel.elf, *wishes.relocation, path));
    kernel.entry = entry + distance;
    kernel.load_base = kernel.elf->first;
    TRY(place_elf_segments(context, *kernel.elf, file, path));
    return kernel;
}

} // namespace

std::optional<std::uint32_t> find_multiboot2_header(File file) {
    std::size_t const end = std::min<std::size_t>(file.size(), search_bytes);
    for (std::uint32_t at = 0; at + header_size <= end; at += 8) {
        auto field = [&](std::uint32_t i) { return load_le<std::uint32_t>(&file[at + 4 * i]); };
        if (field(0) == header_magic && field(0) + field(1) + field(2) + field(3) == 0) return at;
    }
    return std::nullopt;
}

Result<BootEntry> load_multiboot2(LoadContext& context, File file, std::uint32_t at, MultibootCompanions const& with) {
    Wishes const wishes = TRY(read_header(file, at, with.kernel_path));
    if (wishes.console_required && !context.platform.vga_text)
        return error("'{}' is a multiboot 2 kernel that requires a screen, and the machine has none (-vga)",
                     with.kernel_path);
    Kernel const kernel = TRY(place_kernel(context, file, at, wishes, with.kernel_path));

    InfoBuilder info;
    auto add_string = [&info](InfoTag type, std::string const& text) {
        info.begin(type);
        info.string(text);
        info.end();
    };
    add_string(info_command_line, with.arguments);
    add_string(info_loader_name, boot_loader_name);
    auto const modules = TRY(place_modules(context, with));
    for (PlacedModule const& m : modules) {
        info.begin(info_module);
        info.u32(m.start);
        info.u32(m.end);
        info.string(*m.line);
        info.end();
    }
    add_memory(info, context);
    if (context.platform.vga_text) add_text_screen(info);
    if (kernel.elf)
        if (auto const sections = place_sections(context, *kernel.elf, file)) {
            info.begin(info_elf_sections);
            info.u32(sections->count);
            info.u32(sections->entry_size);
            info.u32(sections->names);
            info.raw(sections->headers);
            info.end();
        }
    add_rsdp(info, context);
    if (wishes.relocation && kernel.elf) {
        info.begin(info_load_base);
        info.u32(std::uint32_t(kernel.load_base));
        info.end();
    }
    BootEntry entry = TRY(enter_protected32(context, kernel.entry, plain_selectors));
    entry.gpr[boot_rax] = entry_magic;
    entry.gpr[boot_rbx] = TRY(context.place(info.finish(), 8, "the multiboot information"));
    return entry;
}

} // namespace vmm::firmware
