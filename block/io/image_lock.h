// ImageLock: the byte locks by which we and QEMU keep each other out of an image file.
#pragma once
#include "vmm/base/result.h"

#include <cstdint>
#include <string>

namespace vmm::block {

// What an opener does with a file, or lets others do; bit n is byte 100+n (does) and 200+n (forbids). Observed with
// strace and /proc/locks on QEMU 7.2: shared OFD locks on both bytes, then a query that nobody holds the opposite byte.
enum class Access : std::uint8_t {
    consistent_read = 1 << 0,
    write = 1 << 1,
    write_unchanged = 1 << 2,
    resize = 1 << 3
};
using AccessSet = std::uint8_t;
constexpr AccessSet operator|(Access a, Access b) { return AccessSet(AccessSet(a) | AccessSet(b)); }
inline constexpr AccessSet all_access = 0xf;

struct LockRequest {
    AccessSet uses = 0;            // what we do
    AccessSet shares = all_access; // what others may do at the same time
};

// Takes the locks on `fd`; they last as long as its open file description, which io_uring must never see (it keeps one
// alive for some time after close()). The error is QEMU's two lines, then who holds it: `Failed to get "write" lock\nIs
// another process using the image [x]?\nIt is in use by PID 12 (qemu-system-x86).`
Result<void> lock_image(int fd, LockRequest request, std::string const& filename);
// Whether the file system of `fd` supports OFD locks.
bool can_lock(int fd);

} // namespace vmm::block
