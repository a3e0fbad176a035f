// The file, host_device and host_cdrom protocols: host files as BlockDevices.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Protocol file_protocol();
Protocol host_device_protocol();
Protocol host_cdrom_protocol();

} // namespace vmm::block
