// Packing a directory as an initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/
// buffer-format.rst).
#pragma once
#include "firmware/loader/file_source.h"

#include <string>
#include <vector>

namespace vmm::firmware {

struct PackedDirectory {
    Bytes archive;
    std::vector<std::string> notes; // what was added or left out, for the user
};

// Packs all below `directory`: files, directories, symbolic links, hard links (kept as such), device nodes, FIFOs.
// Everything belongs to root; names are in byte order, so equal trees give equal archives. Adds /dev/console and
// /dev/null where the tree has none, since few users can make device nodes. Sockets are left out. Errors name the file
// that could not be read.
Result<PackedDirectory> pack_directory(std::string const& directory);

} // namespace vmm::firmware
