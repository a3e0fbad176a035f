// Creating an image as `create`, `convert` and `dd` do: option text to a checked request, the backing file looked at.
#pragma once
#include "block/tools/img/command.h"

#include <optional>

namespace vmm::block {

struct CreationPlan {
    std::string filename;
    std::string format = "raw";
    std::string options; // -o text
    std::string backing, backing_format;
    bool trust_backing = false;        // -u: do not open it
    bool strict = false;               // a backing file needs its format said, as QEMU >= 6.1 wants
    std::optional<std::uint64_t> size; // else from options or the backing file
    bool announce = false;             // print the "Formatting ..." line
    CacheMode cache = CacheMode::writeback;
};
// Creates the image; answers with its size. Warnings go to the tool's standard error.
Task<Result<std::uint64_t>> create_image_file(Tool& tool, CreationPlan plan);

// The files of an image just created: `name` and, of a VMDK, its extents.
Task<std::vector<std::string>> files_of(Image& image, std::string name);
// Removes them after a failure: half an image must not be taken for a whole one. Devices are left alone.
void remove_unfinished(std::span<std::string const> files);

// The format by name, or "Unknown file format 'x'"; "Format driver 'x' does not support image creation" when it cannot.
Result<Format const*> creatable_format(Tool& tool, std::string_view name);
// The lines of `-o help` after the heading.
std::string creation_help(Tool& tool, Format const& format, bool with_protocol);

} // namespace vmm::block
