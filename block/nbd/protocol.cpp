#include "block/nbd/protocol.h"

#include <cerrno>

namespace vmm::block::nbd {

namespace {
enum : std::uint32_t {
    wire_perm = 1,
    wire_io = 5,
    wire_nomem = 12,
    wire_inval = 22,
    wire_nospc = 28,
    wire_overflow = 75,
    wire_notsup = 95,
    wire_shutdown = 108
};
}

std::uint32_t to_wire_error(int errno_value) {
    switch (errno_value) {
    case 0: return 0;
    case EPERM:
    case EROFS: return wire_perm;
    case ENOMEM: return wire_nomem;
    case EINVAL: return wire_inval;
    case EFBIG:
    case EDQUOT:
    case ENOSPC: return wire_nospc;
    case EOVERFLOW: return wire_overflow;
    case ENOTSUP: return wire_notsup;
    case ESHUTDOWN: return wire_shutdown;
    default: return wire_io;
    }
}

int from_wire_error(std::uint32_t wire) {
    switch (wire) {
    case 0: return 0;
    case wire_perm: return EPERM;
    case wire_io: return EIO;
    case wire_nomem: return ENOMEM;
    case wire_nospc: return ENOSPC;
    case wire_overflow: return EOVERFLOW;
    case wire_notsup: return ENOTSUP;
    case wire_shutdown: return ESHUTDOWN;
    default: return EINVAL;
    }
}

} // namespace vmm::block::nbd
