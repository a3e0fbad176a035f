// check_initrd: what Linux will be able to make of an initrd, found out before it runs.
#pragma once
#include "firmware/loader/file_source.h"

#include <span>

namespace vmm::firmware {

// Whether a file that begins with `head` can be an initrd at all. `path` is for the message, which names what Linux
// takes (init/initramfs.c, init/do_mounts_rd.c) and how to have another file passed on.
Result<void> check_initrd_head(std::span<std::uint8_t const> head, std::string const& path);

// Follows the parts of an initrd (Documentation/driver-api/early-userspace/buffer-format.rst: cpio archives, compressed
// or not, with zeros between) to their ends as far as that costs little: cpio, zstd, lz4 and lzo by the sizes they
// carry, xz and bzip2 by the mark at their end, small gzip data by inflating it, images of file systems by their size.
// An error when the file is empty, unknown, cut off or damaged. Otherwise remarks for the user, mostly none.
Result<std::vector<std::string>> check_initrd(FileSource const& initrd);

} // namespace vmm::firmware
