#include "firmware/loader/kernel_loader.h"

#include "firmware/loader/bios_services.h"
#include "firmware/loader/cpio.h"
#include "firmware/loader/foreign_kernel.h"
#include "firmware/loader/initrd_check.h"
#include "firmware/loader/linux_boot.h"
#include "firmware/loader/multiboot.h"
#include "firmware/loader/pvh.h"
#include "vmm/base/checked.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace vmm::firmware {

namespace {

bool is_directory(std::string const& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

// The format of `file`, or the reason it has none. A file may carry several marks; the order is QEMU's for those QEMU
// knows (multiboot 1, then the PVH note), so that the same kernel is entered the same way.
enum class Format { linux_image, multiboot1, pvh, multiboot2, bare_elf };
Result<Format> detect(std::span<std::uint8_t const> file, std::string const& path) {
    if (is_linux_image(file)) return Format::linux_image;
    if (find_multiboot1_header(file)) return Format::multiboot1;
    bool const elf = is_x86_elf(file);
    if (elf) {
        auto const image = parse_elf_image(file, path);
        if (image.ok() && image->pvh_entry) return Format::pvh;
    }
    if (find_multiboot2_header(file)) return Format::multiboot2;
    if (elf) return Format::bare_elf;
    return explain_foreign_kernel(file, path);
}

// Whether the beginning of a file carries any format's mark.
Result<void> check_kernel_head(std::span<std::uint8_t const> head, std::string const& path) {
    if (is_linux_image(head) || is_x86_elf(head) || find_multiboot1_header(head) || find_multiboot2_header(head))
        return {};
    return explain_foreign_kernel(head, path);
}

// Whether a bzImage or ELF kernel is Linux: an uncompressed one contains its banner.
bool is_linux(Format format, std::span<std::uint8_t const> file) {
    constexpr std::string_view banner = "Linux version ";
    return format == Format::linux_image || memmem(file.data(), file.size(), banner.data(), banner.size()) != nullptr;
}

// The comma-separated parts of `text`, in order.
std::vector<std::string> split_commas(std::string const& text) {
    std::vector<std::string> parts(1);
    for (char c : text)
        if (c == ',')
            parts.emplace_back();
        else
            parts.back() += c;
    return parts;
}

} // namespace

KernelLoader::KernelLoader(KernelOptions options, FileSource kernel)
    : options_(std::move(options)), kernel_(std::move(kernel)) {}

Result<KernelLoader> KernelLoader::create(KernelOptions options) {
    FileSource kernel = TRY(FileSource::open(options.kernel, "could not open kernel file", check_kernel_head));
    KernelLoader loader(std::move(options), std::move(kernel));
    Bytes const file = TRY(loader.read_kernel());
    Format const format = TRY(detect(file, loader.kernel_.path()));
    if (format == Format::multiboot1 || format == Format::multiboot2)
        TRY(loader.open_modules());
    else
        TRY(loader.open_initrd(is_linux(format, file)));
    return loader;
}

Result<Bytes> KernelLoader::read_kernel() const {
    Bytes head(std::size_t(std::min<std::uint64_t>(kernel_.size(), FileSource::head_size)));
    TRY(kernel_.read_at(0, head));
    if (is_linux_image(head)) return head;
    return kernel_.read();
}

Result<void> KernelLoader::open_initrd(bool for_linux) {
    if (options_.initrd.empty()) return {};
    if (!is_directory(options_.initrd)) {
        bool const check = for_linux && options_.check_initrd;
        initrds_.push_back(TRY(FileSource::open(options_.initrd, "could not load initrd",
                                                check ? check_initrd_head : FileSource::HeadCheck())));
        if (check) notes_ = TRY(check_initrd(initrds_.back()));
        return {};
    }
    PackedDirectory packed = TRY(pack_directory(options_.initrd));
    initrds_.push_back(FileSource::of_bytes(options_.initrd, std::move(packed.archive)));
    notes_ = std::move(packed.notes);
    return {};
}

Result<void> KernelLoader::open_modules() {
    if (options_.initrd.empty()) return {};
    module_lines_ = split_commas(options_.initrd);
    for (std::string const& line : module_lines_) {
        std::string const path = line.substr(0, line.find(' '));
        initrds_.push_back(TRY(FileSource::open(path, "could not load multiboot module")));
    }
    return {};
}

Result<BootEntry> KernelLoader::load(AddressSpace& memory, BootPlatform const& platform) const {
    if (platform.ram_below_4g < 2 * MiB)
        return error("a kernel needs at least 2 MiB of guest RAM, the guest has {} KiB; give it more memory (-m)",
                     platform.ram_below_4g / KiB);
    std::string const& path = kernel_.path();
    Bytes const file = TRY(read_kernel());
    LoadContext context(memory, platform);
    TRY(write_bios_data(context));
    TRY(write_bios_services(context));
    KernelCompanions const with{path, options_.append, initrds_.empty() ? nullptr : &initrds_.front()};
    MultibootCompanions const with_modules{path, options_.append, initrds_, module_lines_};

    switch (TRY(detect(file, path))) {
    case Format::linux_image: {
        LinuxImage const image = TRY(parse_linux_image(file, kernel_.size(), path));
        return load_linux_image(context, image, file, kernel_, with);
    }
    case Format::multiboot1: return load_multiboot1(context, file, *find_multiboot1_header(file), with_modules);
    case Format::multiboot2: return load_multiboot2(context, file, *find_multiboot2_header(file), with_modules);
    case Format::pvh:
    case Format::bare_elf: {
        ElfImage const image = TRY(parse_elf_image(file, path));
        return image.pvh_entry ? load_pvh(context, image, file, with) : load_bare_elf(context, image, file, with);
    }
    }
    VMM_UNREACHABLE();
}

} // namespace vmm::firmware
