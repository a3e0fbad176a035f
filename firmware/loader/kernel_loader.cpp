#include "firmware/loader/kernel_loader.h"

#include "firmware/loader/foreign_kernel.h"
#include "firmware/loader/linux_boot.h"
#include "vmm/base/checked.h"

namespace vmm::firmware {

KernelLoader::KernelLoader(KernelOptions options, FileSource kernel)
    : options_(std::move(options)), kernel_(std::move(kernel)) {}

Result<KernelLoader> KernelLoader::create(KernelOptions options) {
    FileSource kernel = TRY(FileSource::open(options.kernel, "could not open kernel file"));
    KernelLoader loader(std::move(options), std::move(kernel));
    TRY(loader.open_initrd());
    return loader;
}

Result<void> KernelLoader::open_initrd() {
    if (options_.initrd.empty()) return {};
    initrds_.push_back(TRY(FileSource::open(options_.initrd, "could not load initrd")));
    return {};
}

Result<BootEntry> KernelLoader::load(AddressSpace& memory, BootPlatform const& platform) const {
    if (platform.ram_below_4g < 2 * MiB)
        return error("a kernel needs at least 2 MiB of guest RAM, the guest has {} KiB (-m)",
                     platform.ram_below_4g / KiB);
    Bytes const file = TRY(kernel_.read());
    LoadContext context(memory, platform);
    TRY(write_bios_data(context));
    KernelCompanions const with{kernel_.path(), options_.append, initrds_.empty() ? nullptr : &initrds_.front()};

    if (auto image = parse_linux_image(file, kernel_.path()))
        return load_linux_image(context, TRY(std::move(*image)), file, with);
    return explain_foreign_kernel(file, kernel_.path());
}

} // namespace vmm::firmware
