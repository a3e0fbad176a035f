#include "firmware/loader/linux_image.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <cstring>

namespace vmm::firmware {

namespace {
// Offsets in the file, boot.rst.
enum : std::uint32_t {
    setup_sects = 0x1f1,
    boot_flag = 0x1fe,
    jump_length = 0x201,
    header_magic = 0x202,
    version = 0x206,
    loadflags = 0x211,
    code32_start = 0x214,
    initrd_addr_max = 0x22c,
    relocatable_kernel = 0x234,
    xloadflags = 0x236,
    cmdline_size = 0x238,
    payload_offset = 0x248,
    payload_length = 0x24c,
    pref_address = 0x258,
    init_size = 0x260,
    header_area = 0x268
};
constexpr std::uint8_t loaded_high = 1;
constexpr std::uint16_t xlf_kernel_64 = 1;
constexpr std::uint32_t sector = 512;
constexpr std::uint32_t default_setup_sects = 4;
constexpr std::uint32_t max_header_end = 0x290; // where boot_params' EDD area begins

template <class T> T get(std::span<std::uint8_t const> file, std::uint32_t offset) { return load_le<T>(&file[offset]); }
} // namespace

bool is_linux_image(std::span<std::uint8_t const> file) {
    return file.size() >= header_area && std::memcmp(&file[header_magic], "HdrS", 4) == 0 &&
           get<std::uint16_t>(file, boot_flag) == 0xaa55;
}

Result<LinuxImage> parse_linux_image(std::span<std::uint8_t const> head, std::uint64_t size, std::string const& path) {
    VMM_ASSERT(is_linux_image(head));
    LinuxImage image;
    image.protocol = get<std::uint16_t>(head, version);
    if (image.protocol < 0x200)
        return error("'{}' is a Linux kernel with boot protocol {}.{:02}; 2.00 is the oldest "
                     "supported",
                     path, image.protocol >> 8, image.protocol & 0xff);
    if (!(head[loadflags] & loaded_high))
        return Result<LinuxImage>(
            error("'{}' is a zImage, which loads below 640 KiB; build the kernel as bzImage", path));
    image.header_end = std::min<std::uint32_t>(header_magic + head[jump_length], max_header_end);
    std::uint32_t const sectors = head[setup_sects] != 0 ? head[setup_sects] : default_setup_sects;
    image.payload_offset = (sectors + 1) * sector;
    if (size <= image.payload_offset || image.header_end > size)
        return error("'{}' is a Linux bzImage that is cut off: its setup code alone has {} bytes, "
                     "the file {}",
                     path, image.payload_offset, size);

    if (image.protocol >= 0x208) { // where the compressed kernel lies tells how long the file must be
        std::uint64_t const needed = std::uint64_t(image.payload_offset) + get<std::uint32_t>(head, payload_offset) +
                                     get<std::uint32_t>(head, payload_length);
        if (needed > size)
            return error("'{}' is a Linux bzImage that is cut off: it should have at least {} bytes, the file has {}",
                         path, needed, size);
    }
    image.code32_start = image.protocol >= 0x205 ? get<std::uint32_t>(head, code32_start) : 0x100000;
    if (image.protocol >= 0x203) image.initrd_addr_max = get<std::uint32_t>(head, initrd_addr_max);
    if (image.protocol >= 0x205) image.relocatable = head[relocatable_kernel] != 0;
    if (image.protocol >= 0x206) image.cmdline_size = get<std::uint32_t>(head, cmdline_size);
    if (image.protocol >= 0x20a) {
        image.preferred_address = get<std::uint64_t>(head, pref_address);
        image.init_size = get<std::uint32_t>(head, init_size);
    }
    if (image.protocol >= 0x20c) image.entry64 = (get<std::uint16_t>(head, xloadflags) & xlf_kernel_64) != 0;
    if (image.entry64 && size - image.payload_offset <= LinuxImage::entry64_offset)
        return error("'{}' is a Linux bzImage that is cut off after its setup code", path);
    return image;
}

} // namespace vmm::firmware
