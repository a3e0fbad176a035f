// /dev/nbdN: the kernel's NBD client, driven through its ioctls.
#pragma once
#include "block/nbd/client_handshake.h"
#include "vmm/base/unique_fd.h"

#include <string>

namespace vmm::block {

// An opened /dev/nbdN. "Failed to open /dev/nbd0: No such file or directory" plus how to load the module.
Result<UniqueFd> open_nbd_device(std::string const& path);
// `-d`: ends the device's connection. "Cannot open /dev/nbd0: ..." plus the hint.
Result<void> disconnect_nbd_device(std::string const& path);
// Hands the device a connected socket whose handshake is over, and its size and flags. It is in use (and `socket` the
// kernel's) until run_nbd_device returns.
Result<void> configure_nbd_device(int device, int socket, nbd::ExportInfo const& info);
// Serves the device until it is disconnected: blocks its thread. Makes the kernel look for partitions first.
Result<void> run_nbd_device(int device, std::string const& path);

} // namespace vmm::block
