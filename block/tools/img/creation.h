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
    bool size_wins = false;            // over one among the options, which is then no mistake
    bool announce = false;             // print the "Formatting ..." line
    CacheMode cache = CacheMode::writeback;
};
// Creates the image; answers with its size. Warnings go to the tool's standard error.
Task<Result<std::uint64_t>> create_image_file(Tool& tool, CreationPlan plan);

// The files of an image just created: `name` and, of a VMDK, its extents.
Task<std::vector<std::string>> files_of(Image& image, std::string name);
// Removes them after a failure: half an image must not be taken for a whole one. Devices are left alone.
void remove_unfinished(std::span<std::string const> files);

// Whether an image just created there reads as zeroes: a raw disk on a device or an export keeps what was on it, and
// LUKS decrypts it.
bool new_image_is_zero(Tool& tool, std::string_view filename, std::string_view format);

// What makes images of a format, or (`-f file`) makes the thing beneath one: one of the two is set.
struct Creator {
    Format const* format = nullptr;
    Protocol const* protocol = nullptr;
    std::span<OptionSpec const> options() const { return format ? format->create_options : protocol->create_options; }
    bool has_option(std::string_view name) const;
};
// By the format's name. "Unknown file format 'x'"; "Format driver 'x' does not support image creation" when it cannot.
Result<Creator> find_creator(Tool& tool, std::string_view name);
// Its options and those of the protocol of `filename` (none where that is empty).
Result<std::vector<OptionSpec>> creation_options(Tool& tool, Creator const& creator, std::string_view filename);
// Prints what `-o help` asks for: the exit status.
int print_creation_help(Tool& tool, std::string_view format, std::string_view filename);

} // namespace vmm::block
