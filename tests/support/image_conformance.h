// What every writable image format must do, as functions a format's tests call with a profile of each sub-format. They
// report through GoogleTest; a failure names the seed and the number of the operation.
#pragma once
#include "tests/support/block_bench.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::block {

// One way to make an image of a format, and how it is exercised.
struct ImageProfile {
    std::string format;
    std::string create_options =
        {}; // as after -o: "subformat=streamOptimized,compat6=on"; no size; % is the image's path
    std::uint64_t size_bytes = 5 * 1024 * 1024 + 512;
    std::string backing_format = {};     // not empty: over a backing image of this format, half as large
    bool grows = false, shrinks = false; // resize is part of the random operations
    bool resizes_with_snapshots = true;  // qcow2 2 does not
    bool new_reads_zero = true;          // an encrypted disk reads as noise at first
    std::uint32_t granularity = 512;     // sizes after a resize are multiples of it
    bool size_may_be_rounded = false;    // the format rounds the size it is given (VHD)
    std::uint64_t max_request = 300 * 1024;
    unsigned operations = 1000;
    std::uint64_t seed = 1;
    std::string open_options = {}; // driver options for open: "encrypt.key-secret=sec0"
    bool qemu_reads = true; // Debian's qemu-img can open what we make (and `check` it, if the format has a check)
};

// Creates `name` in the bench's directory as the profile says (with its backing image), or reports why not.
Result<void> create_profile_image(BlockBench& bench, ImageProfile const& profile, std::string const& name);
Result<std::unique_ptr<Image>> open_profile_image(BlockBench& bench, ImageProfile const& profile,
                                                  std::string const& name, bool read_only = false);

// Random reads, writes, zeroes, discards, flushes, resizes, snapshots and reopens against a flat array; `check` clean
// at each reopen; the allocation map never calls non-zero bytes zero.
void image_matches_flat_model(ImageProfile profile);
// Eight tasks at once, each on its own small stretches of clusters they share; then overlapping writes, of which each
// byte must be one.
void image_survives_concurrent_requests(ImageProfile profile);
// The files copied at random moments while writes are in flight, as a kill would leave them: `check` finds nothing but
// leaks and every flushed byte is there.
void image_survives_kills(ImageProfile profile);
// The disk under the image loses, sector by sector, what was not flushed when the power goes: the same holds. For
// images of one file.
void image_survives_power_cuts(ImageProfile profile);
// What we write Debian's qemu-img reads (`check`, `compare`), and what it makes of the same content with the same
// options we read. Skips when qemu-img is not installed.
void image_crosses_with_qemu(ImageProfile profile);
// Every header bit pattern `mutations` times: random bytes of a valid image's first `header_bytes` overwritten; open,
// read all (at most 64 MiB), check, close must end, whatever they answer.
void image_survives_corruption(ImageProfile profile, std::size_t header_bytes, unsigned mutations);

// All of the above that apply.
void image_conforms(ImageProfile profile);

// Runs a shell command; its exit code and what it printed on both outputs.
struct CommandOutcome {
    int exit_code = 0;
    std::string output;
};
CommandOutcome run_command(std::string const& command);
bool have_qemu_img();
// `bytes` of seeded noise in which stretches of zeroes occur.
std::vector<std::uint8_t> patchy_noise(std::uint64_t seed, std::size_t bytes);
// All bytes of an image read through the driver.
Result<std::vector<std::uint8_t>> read_whole(BlockBench& bench, BlockDevice& image);

} // namespace vmm::block
