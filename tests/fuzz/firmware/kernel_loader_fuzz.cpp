// Any bytes as a kernel: loading succeeds or fails with a message, and writes nowhere but into guest RAM.
#include "firmware/loader/kernel_loader.h"
#include "vmm/base/checked.h"

#include <sys/mman.h>
#include <unistd.h>

using namespace vmm;
using namespace vmm::firmware;

namespace {
// A small guest, made once: creating RAM is most of a run's cost otherwise.
struct Guest {
    AddressSpace space{"memory", UINT64_MAX};
    std::unique_ptr<RamBlock> ram = RamBlock::create("ram", 8 * MiB).value();
    BootPlatform platform;
    int fd = ::memfd_create("kernel", 0);
    std::string path = fmt::format("/proc/self/fd/{}", fd);
    Guest() {
        space.map({.name = "ram", .range = AddressRange::of(0, 8 * MiB), .backing = Backing::of_ram(*ram)});
        platform.ram_below_4g = 8 * MiB;
        platform.rsdp = 0xf5000;
    }
};
} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    static Guest guest;
    if (::ftruncate(guest.fd, 0) != 0 || ::pwrite(guest.fd, data, size, 0) != ssize_t(size)) return 0;
    auto loader = KernelLoader::create({guest.path, "console=ttyS0", {}});
    if (loader.ok()) (void)loader->load(guest.space, guest.platform).ok();
    return 0;
}
