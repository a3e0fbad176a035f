#include "block/tools/nbd/kernel_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nbd.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <thread>

namespace vmm::block {

namespace {

Error device_error(int reason, std::string const& what, std::string const& path) {
    Error plain = error_from_errno(reason, "{} {}", what, path);
    if (reason != ENOENT && reason != ENXIO && reason != ENODEV) return plain;
    return Error(plain.message() + "\nThe kernel's nbd module is not loaded, or it has fewer devices. Load it with\n"
                                   "    modprobe nbd max_part=16",
                 reason);
}

} // namespace

Result<UniqueFd> open_nbd_device(std::string const& path) {
    UniqueFd device(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!device) return device_error(errno, "Failed to open", path);
    return device;
}

Result<void> disconnect_nbd_device(std::string const& path) {
    UniqueFd device(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!device) return device_error(errno, "Cannot open", path);
    ::ioctl(device.get(), NBD_CLEAR_QUE);
    if (::ioctl(device.get(), NBD_DISCONNECT) < 0) return error_from_errno(errno, "Cannot disconnect {}", path);
    ::ioctl(device.get(), NBD_CLEAR_SOCK);
    return {};
}

Result<void> configure_nbd_device(int device, int socket, nbd::ExportInfo const& info) {
    constexpr unsigned long block_bytes = 512;
    if (::ioctl(device, NBD_SET_SOCK, socket) < 0) {
        int reason = errno;
        if (reason == EBUSY) return error("The NBD device is in use already; `-d` disconnects it");
        return error_from_errno(reason, "Failed to set NBD socket");
    }
    if (::ioctl(device, NBD_SET_BLKSIZE, block_bytes) < 0)
        return error_from_errno(errno, "Failed setting NBD block size");
    if (::ioctl(device, NBD_SET_SIZE_BLOCKS, info.size_bytes / block_bytes) < 0)
        return error_from_errno(errno, "Failed setting size (in blocks)");
    unsigned long flags = info.flags;
    if (::ioctl(device, NBD_SET_FLAGS, flags) < 0) {
        if (errno != ENOTTY) return error_from_errno(errno, "Failed setting flags");
        int read_only = (info.flags & nbd::flag_read_only) != 0; // kernels without flags
        if (::ioctl(device, BLKROSET, &read_only) < 0) return error_from_errno(errno, "Failed setting read-only");
    }
    return {};
}

Result<void> run_nbd_device(int device, std::string const& path) {
    // Opening the device once it is connected makes the kernel read its partition table.
    std::thread partitions([path] { UniqueFd look(::open(path.c_str(), O_RDONLY | O_CLOEXEC)); });
    int result = ::ioctl(device, NBD_DO_IT);
    int reason = errno;
    partitions.join();
    ::ioctl(device, NBD_CLEAR_QUE);
    ::ioctl(device, NBD_CLEAR_SOCK);
    if (result < 0 && reason != EPIPE) return error_from_errno(reason, "The NBD device {} failed", path);
    return {};
}

} // namespace vmm::block
